"""A GGUF file as a model: it computes what its weights say, is converted once, and is refused where it is not read."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write_gguf

from whichlora.errors import OptionError
from whichlora.models.gguf import files
from whichlora.models.loading import load_model, load_tokenizer, locate, read_shape
from whichlora.testing import save_tiny_model

TEXT = "Kenya iko Afrika mashariki.\n\n 47 काउंटी، کینیا  2024"
TINY: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {"tie_word_embeddings": False},
    "Gemma3TextConfig": {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 8},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: save_tiny_model(folder / name, config=name, **fields) for name, fields in TINY.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whichlora" / "gguf"


def logits(name: str) -> Any:
    import torch

    source = locate(name)
    model, ids = load_model(source, precision="fp32", quantization="none"), load_tokenizer(source)(TEXT)["input_ids"]
    with torch.no_grad():
        return ids, model(torch.tensor([ids])).logits


@pytest.mark.parametrize("config", TINY)
def test_a_file_computes_what_the_original_computes(tiny: dict[str, Path], tmp_path: Path, config: str) -> None:
    import torch

    file = write_gguf(tiny[config], tmp_path / "tiny.gguf")
    ids, computed = logits(str(file))
    expected_ids, expected = logits(str(tiny[config]))
    assert ids == expected_ids
    if config == "Gemma3TextConfig":  # 1 is added to the weights of norms and subtracted again
        torch.testing.assert_close(computed, expected)
    else:
        assert torch.equal(computed, expected)
    assert read_shape(locate(str(file))) == read_shape(locate(str(tiny[config])))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantised_weights_are_the_dequantised_ones(tiny: dict[str, Path], tmp_path: Path, kind: str) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf", quantization=kind)
    found = load_file(Path(locate(str(file)).name_or_path) / "model.safetensors")
    original = load_file(tiny["LlamaConfig"] / "model.safetensors")
    assert found.keys() == original.keys()
    for name, weight in original.items():
        expected = weight
        if weight.ndim == 2:  # quantising commutes with the order of rows
            type_ = gguf.GGMLQuantizationType[kind]
            expected = gguf.dequantize(gguf.quants.quantize(weight, type_), type_)
            assert not np.array_equal(expected, weight)
        assert np.array_equal(found[name], expected), name


def test_a_file_is_converted_once_under_whatever_name_and_place(
    tiny: dict[str, Path], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf")
    (tmp_path / "elsewhere").mkdir()
    for other in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / other).write_text("{}")  # of another model
    second = Path(shutil.copy(first, tmp_path / "elsewhere" / "renamed.GGUF"))
    sources = [locate(str(file)) for file in (first, second, first)]
    assert len({(source.name_or_path, source.digest) for source in sources}) == 1
    assert [Path(source.gguf or "").name for source in sources] == ["tiny.gguf", "renamed.GGUF", "tiny.gguf"]
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    again = write_gguf(tiny["LlamaConfig"], tmp_path / "same.GGUF", change=lambda writer: writer.add_author("me"))
    assert locate(str(again)).digest == sources[0].digest  # another file with the same model


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", files.INFO])
def test_a_damaged_conversion_is_made_again(
    tiny: dict[str, Path], tmp_path: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf")
    source = locate(str(file))
    os.truncate(Path(source.name_or_path) / lost, 100)
    assert locate(str(file)) == source
    assert "is incomplete or damaged; creating it again" in capsys.readouterr().err
    assert files.is_intact(Path(source.name_or_path))


def broken(file: Path, how: str) -> Path:
    if how == "text":
        file.write_text("hello, this is no model")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "cut weights":
        os.truncate(file, file.stat().st_size // 2)
    else:
        os.truncate(file, 1000)
    return file


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", "is not a GGUF file"),
        ("empty", "is not a GGUF file"),
        ("cut weights", "is damaged or not complete"),
        ("cut header", "is damaged or not complete"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    tiny: dict[str, Path], tmp_path: Path, how: str, message: str, cache: Path
) -> None:
    file = broken(write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf"), how)
    with pytest.raises(OptionError, match=rf"^model={re.escape(str(file))}: .*{message}.*$"):
        locate(str(file))
    assert not list(cache.glob("*/"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "rwkv6"}, "transformers cannot read it"),
        ({"architecture": "clip"}, "is a projector of images"),
        ({"change": lambda w: w.add_type("adapter")}, "is of the type adapter"),
        ({"change": lambda w: w.add_uint16("split.count", 3)}, "is one of 3 parts"),
        ({"tokenizer": False}, "has no tokenizer"),
        ({"change": lambda w: w.add_tokenizer_pre("no-such-rules")}, "tokenizer.ggml.pre is no-such-rules"),
        ({"change": lambda w: w.add_string("llama.rope.scaling.type", "linear")}, "rotary embeddings are scaled"),
        ({"change": lambda w: w.add_tensor("rope_freqs.weight", _ones(4))}, "but it holds"),
    ],
)
def test_what_transformers_would_not_read_is_refused(
    tiny: dict[str, Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf", **options)
    with pytest.raises(OptionError, match=message) as caught:
        locate(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["gguf", "GGUF"])
def test_a_part_is_known_by_its_name_too(tiny: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / f"tiny-00001-of-00003.{suffix}")
    with pytest.raises(OptionError, match="is one of 3 parts of a GGUF file; join them"):
        locate(str(file))


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no such GGUF file"):  # without a look at the hub
        locate(str(tmp_path / "no.gguf"))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(OptionError, match="is a file, but must be a folder with a saved model, or a GGUF file"):
        locate(str(tmp_path / "model.bin"))


def test_metadata_that_is_not_read_is_named(tiny: dict[str, Path], tmp_path: Path) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf", change=lambda w: w.add_logit_scale(2.0))
    with pytest.warns(UserWarning, match="transformers does not read logit_scale of the GGUF file"):
        locate(str(file))


def test_digits_are_split_where_the_file_says_so(tiny: dict[str, Path], tmp_path: Path) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf", change=lambda w: w.add_tokenizer_pre("smollm"))
    tokens = load_tokenizer(locate(str(file))).tokenize("in 2024")
    assert tokens[-4:] == ["2", "0", "2", "4"]


def test_the_folder_says_what_it_is(tiny: dict[str, Path], tmp_path: Path) -> None:
    file = write_gguf(tiny["LlamaConfig"], tmp_path / "tiny.gguf", change=lambda w: w.add_license("gemma"))
    folder = Path(locate(str(file)).name_or_path)
    assert (files.file_name_of(folder), files.licence_of(folder)) == ("tiny.gguf", "gemma")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert json.loads((folder / "config.json").read_text())["rms_norm_eps"] == 1e-6


def _ones(size: int) -> Any:
    import numpy as np

    return np.ones(size, dtype=np.float32)
