"""Where a database and its artifacts are: moved folders, experiments of a server, folders with unusual names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from whichlora.archive import main as archive
from whichlora.database import main as database
from whichlora.experiment.command import main as experiment
from whichlora.run.command import main as run
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.moved import warn_if_moved
from whichlora.tracking.runs import Tracker

SIZES = ["--train_size", "16", "--validation_size", "6", "--test_size", "6"]


def log_one(text: str, *, end: bool = True) -> str:
    """Log a run with one artifact in the current database and return its id."""
    log = Tracker(connect(), "tests").open("run", "one", {"fingerprint": text})
    scratch = Path(text)
    scratch.mkdir()
    (scratch / "a.txt").write_text(text)
    log.artifacts(scratch)
    shutil.rmtree(scratch)
    if end:
        log.client.set_terminated(log.run_id, "FINISHED")
    return log.run_id


def artifact(run_id: str) -> str:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="a.txt")).read_text()


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the database of a folder, in this process and its children."""
    uri = f"sqlite:///{quote(str(folder / 'mlflow.db'))}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    warn_if_moved.cache_clear()


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a database and one run, in a folder of this name, because a path may contain it."""
    folder = tmp_path / "mlruns" / "a home, 100%"
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder / "mlflow.db")
    enter(folder, monkeypatch)
    return folder


@pytest.mark.parametrize("copied", [True, False])
def test_a_moved_folder_is_mended(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], copied: bool
) -> None:
    first = log_one("first")
    new = tmp_path / "new #1?"
    (shutil.copytree if copied else shutil.move)(home, new)
    enter(new, monkeypatch)
    capsys.readouterr()
    connect()
    (warning,) = capsys.readouterr().err.strip().split("\n")
    assert str(home) in warning
    assert "whichlora archive relocate" in warning

    lost = log_one("lost")  # before the mend it is stored in the former folder
    assert (home / "mlartifacts" / "tests" / lost).is_dir()
    assert archive(["relocate"]) == 0
    said = capsys.readouterr().out
    assert f"Artifacts of 1 runs are in the former folder only, such as {home}" in said
    assert artifact(lost) == "lost"
    if not copied:
        shutil.copytree(home / "mlartifacts" / "tests" / lost, new / "mlartifacts" / "tests" / lost)
        assert archive(["relocate"]) == 0
    else:
        shutil.move(home / "mlartifacts" / "tests" / lost, new / "mlartifacts" / "tests")
        assert archive(["relocate"]) == 0
    shutil.rmtree(home)
    assert "Nothing to do" not in capsys.readouterr().out
    assert archive(["relocate"]) == 0
    assert "Nothing to do" in capsys.readouterr().out

    assert (artifact(first), artifact(lost)) == ("first", "lost")
    third = log_one("third")
    assert (new / "mlartifacts" / "tests" / third / "artifacts" / "a.txt").is_file()
    assert not home.exists()
    warn_if_moved.cache_clear()
    connect()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["run", "database", "pack", "experiment"])
def test_every_command_warns(
    home: Path,
    tmp_path: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    log_one("first")
    shutil.move(home, tmp_path / "new")
    enter(tmp_path / "new", monkeypatch)
    Path("grid.yaml").write_text(f"name: tests\ndefaults: {{model: {tiny_model}}}\narms: [{{variant: lora}}]\n")
    calls = {
        "run": lambda: run(["--model", tiny_model, "--variant", "none", *SIZES]),
        "database": lambda: database([]),  # which `make ui` calls first
        "pack": lambda: archive(["pack", "x.tar"]),
        "experiment": lambda: experiment(["--file", "grid.yaml", "--dry_run", "true"]),
    }
    capsys.readouterr()
    assert calls[command]() == 0
    assert capsys.readouterr().err.count("whichlora archive relocate") == 1


def test_relocation_waits_for_runs_in_progress_and_is_all_or_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_one("first")
    running = log_one("second", end=False)
    shutil.move(home, tmp_path / "new")
    enter(tmp_path / "new", monkeypatch)

    def locations() -> list[tuple[str, ...]]:
        with closing(sqlite3.connect("mlflow.db")) as rows:
            return sorted(
                rows.execute("SELECT artifact_uri FROM runs UNION ALL SELECT artifact_location FROM experiments")
            )

    before = locations()
    assert archive(["relocate"]) == 2
    (line,) = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    assert f"1 runs are in progress ({running})" in line
    assert "--force true" in line
    assert locations() == before

    with closing(sqlite3.connect("mlflow.db")) as rows:  # one update fails
        rows.execute(
            f"CREATE TRIGGER no BEFORE UPDATE ON runs WHEN OLD.run_uuid = '{running}' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        rows.commit()
    assert archive(["relocate", "--force", "true"]) == 2
    assert "cannot be changed" in capsys.readouterr().err
    assert locations() == before
    with closing(sqlite3.connect("mlflow.db")) as rows:
        rows.execute("DROP TRIGGER no")
        rows.commit()
    assert archive(["relocate", "--force", "true"]) == 0
    moved = [uri for (uri,) in locations() if "/mlartifacts/tests" in uri]
    assert len(moved) == 3
    assert all(uri.startswith((tmp_path / "new").as_uri()) for uri in moved)


def test_locations_that_were_chosen_are_left(
    store: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another disk, and a server; not what a database beside them would have."""
    chosen = (tmp_path_factory.mktemp("disk") / "mlartifacts" / "big").as_uri()
    client = connect()
    client.create_experiment("big", artifact_location=chosen)
    client.create_experiment("far", artifact_location="s3://bucket/mlartifacts/far")
    client.create_experiment("ui", artifact_location="mlflow-artifacts:/7")
    warn_if_moved.cache_clear()
    connect()
    assert capsys.readouterr().err == ""
    assert archive(["relocate"]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    locations = {e.name: e.artifact_location for e in client.search_experiments()}
    assert (locations["big"], locations["far"]) == (chosen, "s3://bucket/mlartifacts/far")


def test_relocation_needs_a_database_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert archive(["relocate"]) == 2
    assert "must be an existing SQLite database" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert archive(["relocate"]) == 2
    assert "results on a server are elsewhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["mlflow-artifacts:/7", "mlflow-artifacts:/"])
def test_an_experiment_made_in_the_ui_is_refused_before_a_model_loads(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], location: str
) -> None:
    client = connect()
    client.create_experiment("ui", artifact_location=location)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ui")
    (store / "grid.yaml").write_text(f"name: ui\ndefaults: {{model: {tiny_model}}}\narms: [{{variant: lora}}]\n")
    monkeypatch.setattr("whichlora.run.pipeline.run", lambda *_: pytest.fail("a run began"))
    for call in (
        lambda: run(["--model", tiny_model, *SIZES]),
        lambda: experiment(["--file", "grid.yaml"]),
        lambda: experiment(["--file", "grid.yaml", "--dry_run", "true"]),
    ):
        capsys.readouterr()
        assert call() == 2
        (line,) = capsys.readouterr().err.strip().split("\n")
        assert line.startswith("error: experiment=ui: ")
        assert "MLFLOW_TRACKING_URI" in line
    with pytest.raises(Exception, match="tracking server"):
        experiment_id(client, "ui")


def test_an_experiment_made_on_a_server_is_used_through_the_server(server: str, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        client = MlflowClient()
        number = client.create_experiment("ui")
        assert client.get_experiment(number).artifact_location.startswith("mlflow-artifacts:")
        assert experiment_id(client, "ui") == number
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("name", ["a?b=c #1 100%20 d:e {x} एक"])
def test_results_are_in_the_folder_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    """In a process of its own, which takes MLflow's default address."""
    folder = tmp_path / name
    folder.mkdir()
    code = (
        "from pathlib import Path\n"
        "from whichlora.tracking.client import connect\n"
        "from whichlora.tracking.runs import Tracker\n"
        "from whichlora.scheduling import queue\n"
        "log = Tracker(connect(), 'tests').open('run', 'one', {'fingerprint': 'f'})\n"
        "Path('out').mkdir(); Path('out/a.txt').write_text('a'); log.artifacts(Path('out'))\n"
        "queue.Queue('q', queue.connect()).offer(['a'])\n"
    )
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env=own)
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in folder.iterdir()} - {"out"} >= {"mlflow.db", "optuna.db", "mlartifacts"}
    assert len(list((folder / "mlartifacts").rglob("a.txt"))) == 1


def test_another_database_in_the_current_folder_is_not_where_this_one_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow would store the artifacts of the experiment Default in the current folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    enter(here, monkeypatch)
    log_one("one")
    mlflow.set_tracking_uri(f"sqlite:///{there / 'mlflow.db'}")
    client = connect()
    assert (client.get_experiment("0").artifact_location) == (there / "mlartifacts" / "0").as_uri()
    location = (here / "mlruns" / "0").as_uri()
    with closing(sqlite3.connect(there / "mlflow.db")) as rows:  # as MLflow writes it
        rows.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))
        rows.commit()
    warn_if_moved.cache_clear()
    connect()
    assert "was moved" not in capsys.readouterr().err
    (here / "mlruns" / "0").mkdir(parents=True)
    warn_if_moved.cache_clear()
    connect()
    assert "was moved or copied" in capsys.readouterr().err
