"""Locating, identifying and loading models, and reading their shape without weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from whichlora.errors import OptionError
from whichlora.models.kernels import onednn
from whichlora.models.loading import current_device, load_model, load_tokenizer, locate, read_shape, shape_of


@pytest.fixture
def copy(tiny_model, tmp_path):
    """Make a copy of the tiny model in a folder of the given name."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(tiny_model, tmp_path / name))

    return make


def write_config(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(text, encoding="utf-8")
    return str(folder)


def digest(folder: Path) -> str:
    return locate(str(folder)).digest


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"^model=.*config\.json"):
        locate(str(tmp_path))


def test_what_is_neither_packaged_nor_a_folder_is_refused_with_what_is_allowed(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(OptionError) as caught:
        locate(missing)
    assert str(caught.value).startswith(f"model={missing}: allowed are smollm2-135m, gemma3-270m, a folder")
    assert "\n" not in str(caught.value)


def test_the_digest_depends_on_the_content_and_not_on_the_path(copy, tiny_model):
    one, two = copy("one"), copy("two")
    (two / "README.md").write_text("notes")
    assert digest(one) == digest(two) == digest(Path(tiny_model))
    source = locate(str(one))
    assert (source.name_or_path, source.revision) == (str(one), None)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_digest_changes_with_every_file_of_the_model(copy, name):
    one, two = copy("one"), copy("two")
    if name.endswith(".json"):
        content = json.loads((two / name).read_text())
        (two / name).write_text(json.dumps(content | {"changed": True}))
    else:
        flip_last_byte(two / name)
    assert digest(one) != digest(two)


def test_a_folder_whose_content_changes_is_read_again(copy):
    folder = copy("one")
    before = digest(folder)
    flip_last_byte(folder / "model.safetensors")
    assert digest(folder) != before
    flip_last_byte(folder / "model.safetensors")
    assert digest(folder) == before


def test_two_files_that_swap_their_contents_are_another_model(copy):
    one, two = copy("one"), copy("two")
    (one / "a.txt").write_text("1")
    (one / "b.txt").write_text("2")
    (two / "a.txt").write_text("2")
    (two / "b.txt").write_text("1")
    assert digest(one) != digest(two)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_by_hand_and_tied_ones_once(tmp_path, tied):
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=77,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    attention = 8 * 8 + 2 * 8 * 4 + 8 * 8
    block = attention + 3 * 8 * 12 + 2 * 8
    shape = read_shape(locate(str(tmp_path)))
    assert shape.parameters == 2 * block + 8 + 50 * 8 * (1 if tied else 2)
    assert (shape.n_layers, shape.context) == (2, 77)
    assert shape.module_names() == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert len(shape.linears) == 2 * 7
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert shape_of(loaded) == shape
    for name, (n_in, n_out) in shape.linears.items():
        assert tuple(loaded.get_submodule(name).weight.shape) == (n_out, n_in)


@pytest.mark.parametrize(
    "config",
    [
        '{"model_type": "nosuch"}',
        '{"model_type": "t5"}',
        '{"model_type": "vit"}',
        "{}",
        "{",
        "[]",
        '{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}',
        '{"model_type": "llama", "hidden_size": "wide"}',
    ],
)
def test_a_folder_that_holds_no_causal_model_is_refused_in_one_line(tmp_path, config):
    folder = write_config(tmp_path / "model", config)
    with pytest.raises(OptionError) as caught:
        read_shape(locate(folder))
    assert str(caught.value).startswith(f"model={folder}: ")
    assert "causal language model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bidirectional_encoder_is_refused(tmp_path):
    folder = write_config(
        tmp_path / "bert", '{"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}'
    )
    with pytest.raises(OptionError, match="causal language model"):
        read_shape(locate(folder))


def test_a_tokenizer_without_padding_pads_with_the_end(copy):
    folder = copy("unpadded")
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        content.pop("pad_token", None)
        path.write_text(json.dumps(content))
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder).pad_token_id is None
    tokenizer = load_tokenizer(locate(str(folder)))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_a_model_without_a_tokenizer_is_refused_in_one_line(copy):
    folder = copy("mute")
    for path in folder.glob("token*.json"):
        path.unlink()
    with pytest.raises(OptionError, match=r"^model=.*tokenizer") as caught:
        load_tokenizer(locate(str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_model_loads_in_the_precision_asked_for(tiny_model, precision, dtype):
    model = load_model(locate(tiny_model), precision=precision, quantization="none")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.device == current_device()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read_are_an_error_in_one_line(copy, damage):
    folder = copy(damage)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(OptionError, match=r"^model=.*weights cannot be loaded") as caught:
        load_model(locate(str(folder)), precision="fp32", quantization="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("emulated", [True, False])
def test_bf16_without_instructions_for_it_is_warned_of(
    tiny_model: str, emulated: bool, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(onednn, "emulates_bf16", lambda: emulated)
    source = locate(tiny_model)
    load_model(source, precision="fp32", quantization="none")
    assert not [w for w in recwarn if "precision=bf16" in str(w.message)]
    load_model(source, precision="bf16", quantization="none")
    messages = [str(w.message) for w in recwarn if "precision=bf16" in str(w.message)]
    assert len(messages) == emulated
    assert all("precision=fp32 is faster here" in text for text in messages)
