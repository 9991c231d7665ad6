"""`whichlora cache`: what is stored is listed with its size, and removed unless a process needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from whichlora.cache import main
from whichlora.models import in_use
from whichlora.models.folders.created import lock_file
from whichlora.models.gguf import files as gguf_files
from whichlora.models.packaged import DEFAULT, packaged_model_folder
from whichlora.parallel.locks import exclusive

COMMIT = "a" * 40
OTHER, CONVERSION = "gemma3-270m", "0123456789abcdef-1"


@pytest.fixture
def stored(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches with something of every kind, and a work folder."""
    import datasets
    from huggingface_hub.utils import _cache_manager

    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    monkeypatch.setattr(_cache_manager, "HF_HUB_CACHE", str(store / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", store / "datasets")
    monkeypatch.setattr(in_use, "_marks", {})
    write(packaged_model_folder() / "model.safetensors", 3 * 2**20)
    write(packaged_model_folder(OTHER) / "model.safetensors", 4096)
    write(packaged_model_folder(OTHER).with_name(f"{packaged_model_folder(OTHER).name}.making-x") / "a", 10)
    write(packaged_model_folder(OTHER).with_name(f"{OTHER}-0.9-1") / "a", 10)
    write(gguf_files.conversions_folder() / CONVERSION / "gguf.json", 0).write_text('{"file": "mine.gguf"}')
    write(store / "cache" / "whichlora" / "artifacts" / "r" / "predictions" / "en.parquet", 2048)
    for kind, name in (("models", "org--small"), ("datasets", "xnli")):
        repo = store / "hub" / f"{kind}--{name}"
        write(repo / "blobs" / "b", 4096)
        write(repo / "refs" / "main", 0).write_text(COMMIT)
        (repo / "snapshots" / COMMIT).mkdir(parents=True)
        (repo / "snapshots" / COMMIT / "config.json").symlink_to(repo / "blobs" / "b")
    write(store / "datasets" / "org___data" / "default" / "x.arrow", 1024)
    for name in ("run-0123", "trial-4567"):
        write(store / "whichlora-work" / name / "checkpoint" / "state.pt", 1024)
    return store


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


NAMES = {
    *(OTHER, "gemma3-270m-1.0.0-1.making-x", "gemma3-270m-0.9-1", f"gguf/{CONVERSION}"),
    *(DEFAULT, "predictions", "model/org/small", "dataset/xnli", "prepared/org/data"),
    *("work/run-0123", "work/trial-4567"),
}


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main([]) == 0
    _, *lines, _ = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line for line in lines}


def removed(capsys: pytest.CaptureFixture[str], names: str, status: int = 0) -> str:
    assert main(["--remove", names, "--yes", "true"]) == status
    return capsys.readouterr().err


def test_everything_is_listed_with_its_size(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys)
    assert lines.keys() == NAMES
    assert "3.0 MiB" in lines[DEFAULT]
    assert "a packaged model, converted" in lines[OTHER]
    assert "an interrupted conversion of a packaged model" in lines["gemma3-270m-1.0.0-1.making-x"]
    assert "a packaged model of another version" in lines["gemma3-270m-0.9-1"]
    assert "a conversion of mine.gguf" in lines[f"gguf/{CONVERSION}"]
    assert "4 KiB" in lines["model/org/small"]
    assert str(stored / "datasets" / "org___data") in lines["prepared/org/data"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_is_named_is_removed_and_nothing_else(stored: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    removed(capsys, name)
    assert listed(capsys).keys() == NAMES - {name}
    assert not list(stored.rglob("*.removed"))


def test_several_names_and_patterns(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    removed(capsys, "work/*, predictions")
    assert listed(capsys).keys() == NAMES - {"work/run-0123", "work/trial-4567", "predictions"}


def test_an_empty_cache_is_said(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    removed(capsys, "*")
    assert main([]) == 0
    assert capsys.readouterr().out == "Nothing is stored.\n"


def test_an_unknown_name_removes_nothing(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: remove=predictions,model/org/smal: nothing has the name model/org/smal; " in removed(
        capsys, "predictions,model/org/smal", 2
    )
    assert listed(capsys).keys() == NAMES


def test_without_a_terminal_nothing_is_removed_unasked(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--remove", "predictions"]) == 2
    assert "error: yes=false: must be true" in capsys.readouterr().err
    assert listed(capsys).keys() == NAMES


def test_a_question_is_asked_in_a_terminal(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, left in ((False, NAMES), (True, NAMES - {"predictions"})):
        monkeypatch.setattr("click.confirm", lambda text, answer=answer: answer)
        assert main(["--remove", "predictions"]) == (not answer)
        capsys.readouterr()
        assert listed(capsys).keys() == left


def test_what_a_process_is_at_work_in_is_kept(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub_lock, data_lock = stored / "hub" / ".locks" / "datasets--xnli" / "b.lock", stored / "datasets" / "org___data"
    hub_lock.parent.mkdir(parents=True)
    beside = data_lock.parent / f"{data_lock.as_posix().replace('/', '_')}_default.lock"
    with (
        exclusive(stored / "whichlora-work" / "run-0123"),
        FileLock(lock_file(packaged_model_folder())),
        FileLock(hub_lock),
        FileLock(beside),
    ):
        used = {name for name, line in listed(capsys).items() if " yes " in line}
        assert used == {"work/run-0123", DEFAULT, "dataset/xnli", "prepared/org/data"}
        err = removed(capsys, "*", status=1)
        assert listed(capsys).keys() == used
    assert err.count("a running command needs it") == len(used)
    removed(capsys, "*")


@pytest.mark.parametrize("name", [DEFAULT, OTHER, f"gguf/{CONVERSION}", "org/small"])
def test_a_model_is_kept_until_the_process_that_uses_it_has_ended(
    stored: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code = f"import sys; from whichlora.models.in_use import mark; mark({name!r}); "
    code += "print('marked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "marked\n"
        entry = f"model/{name}" if name == "org/small" else name
        assert f"not removed: {entry}: a running command needs it" in removed(capsys, entry, status=1)
        process.kill()
        process.wait()
    removed(capsys, entry)
    assert entry not in listed(capsys)


def test_a_located_model_is_marked(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.models import loading, sources

    monkeypatch.setattr(sources, "packaged_model_path", packaged_model_folder)
    assert not in_use.is_marked(DEFAULT)
    loading.locate(DEFAULT)
    assert in_use.is_marked(DEFAULT)
