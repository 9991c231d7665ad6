"""Databases are created whole or not at all, whatever happens in their first seconds, and wherever they are."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from whichlora.database import main
from whichlora.scheduling import queue
from whichlora.scheduling.storage import storage_file, storage_url
from whichlora.tracking.sqlite import studies_state, tracking_state

TRACKING = "from whichlora.tracking.client import connect; print('loaded', flush=True); connect()"
STUDIES = "from whichlora.scheduling.queue import connect; print('loaded', flush=True); connect()"
BOTH = pytest.mark.parametrize(("code", "name"), [(TRACKING, "mlflow.db"), (STUDIES, "optuna.db")])


def start(code: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    """Start Python in a folder, without the variables of MLflow and whichlora, and wait until modules are imported."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=own, stdout=pipe, stderr=pipe, text=True, **options
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    return process


def state(file: Path) -> str:
    return tracking_state(file) if file.name == "mlflow.db" else studies_state(file)


@pytest.mark.slow
@BOTH
def test_a_kill_leaves_a_whole_database_or_none(tmp_path: Path, code: str, name: str) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    process = start(code, whole)
    loaded = time.monotonic()
    assert process.wait() == 0
    duration = time.monotonic() - loaded
    assert duration < time.monotonic() - began
    chance = random.Random(1)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start(code, folder)
        time.sleep(chance.uniform(0, 1.1 * duration))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert state(folder / name) in ("absent", "complete")
    again = start(code, folder)
    assert again.wait() == 0, again.stderr.read()
    assert state(folder / name) == "complete"
    assert {path.name for path in folder.iterdir()} <= {name, f"{name}.lock"}


@pytest.mark.slow
@BOTH
def test_a_full_disk_leaves_no_database_and_one_line(tmp_path: Path, code: str, name: str) -> None:
    limit = (60_000, 60_000)
    code = code.replace("; connect()", "\nfrom whichlora.errors import OptionError\ntry: connect()\n")
    code += "except OptionError as error: print(error)"
    process = start(code, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "cannot be created" in out
    assert {path.name for path in tmp_path.iterdir()} <= {f"{name}.lock"}
    assert start(code, tmp_path).wait() == 0
    assert state(tmp_path / name) == "complete"


@pytest.mark.slow
@BOTH
def test_what_a_killed_process_wrote_is_rolled_back(tmp_path: Path, code: str, name: str) -> None:
    """Its journal remains, and a connection that may only read cannot roll back."""
    assert start(code, tmp_path).wait() == 0
    table, column = ("experiments", "name") if name == "mlflow.db" else ("studies", "study_name")
    killed = f"""
import os, signal, sqlite3
print("loaded", flush=True)
database = sqlite3.connect({name!r}, isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
for number in range(3000):
    database.execute("INSERT INTO {table} ({column}) VALUES (?)", (f"{{number}}" * 50,))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert start(killed, tmp_path).wait() == -signal.SIGKILL
    assert (tmp_path / f"{name}-journal").stat().st_size
    assert state(tmp_path / name) == "complete"
    assert start(code, tmp_path).wait() == 0


@pytest.mark.parametrize("statements", [20, 60, 200])
def test_a_half_made_database_is_named_with_what_to_do(
    store: Path, capsys: pytest.CaptureFixture[str], statements: int
) -> None:
    """Earlier versions created the schema in place: this replays the first statements of it."""
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        texts = [text for text in database.iterdump() if "INSERT" not in text and "TRANSACTION" not in text]
    (store / "mlflow.db").unlink()
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        tables = [text for text in texts if text.startswith("CREATE TABLE")]
        first = [text for text in tables if '"experiments"' in text[:30] or " experiments " in text[:30]]
        for text in [*first, *(text for text in tables if text not in first)][: statements // 4]:
            database.execute(text)
        database.commit()
    before = (store / "mlflow.db").read_bytes()
    assert main([]) == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.startswith("error: MLFLOW_TRACKING_URI=")
    assert "delete the file" in line
    assert (store / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "another version of MLflow"),
        ("UPDATE alembic_version SET version_num = '451aebb31d03'", "out-of-date"),
        (None, "not a database"),
    ],
)
def test_a_database_of_another_kind_is_named_and_not_changed(
    store: Path, capsys: pytest.CaptureFixture[str], change: str | None, says: str
) -> None:
    if change is None:
        (store / "mlflow.db").write_text("something else")
    else:
        with closing(sqlite3.connect(store / "mlflow.db")) as database:
            database.execute(change)
            database.commit()
    before = (store / "mlflow.db").read_bytes()
    assert main([]) == 2
    (line,) = [line for line in capsys.readouterr().err.strip().split("\n") if line.startswith("error: ")]
    assert says in line
    assert (store / "mlflow.db").read_bytes() == before


@pytest.mark.slow
@BOTH
def test_an_empty_file_becomes_a_database(tmp_path: Path, code: str, name: str) -> None:
    (tmp_path / name).touch(mode=0o640)
    process = start(code, tmp_path)
    assert process.wait() == 0, process.stderr.read()
    assert state(tmp_path / name) == "complete"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} <= {name, f"{name}.lock"}


def test_a_new_database_has_the_mode_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    queue.connect(f"sqlite:///{tmp_path / 'optuna.db'}")
    assert (tmp_path / "optuna.db").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_optuna_completes_what_an_earlier_version_left_half_created(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    queue.connect(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as database:
        database.execute("DROP TABLE alembic_version")
        database.execute("DROP TABLE trial_heartbeats")
        database.commit()
    assert studies_state(file) == "older"
    queue.Queue("q", queue.connect(f"sqlite:///{file}")).offer(["cell"])
    assert studies_state(file) == "complete"


@pytest.mark.parametrize("name", ["what?", "a?b=c", "100%", "a%20b", "{x}", "a#b", "with a space", "año_एक"])
def test_studies_are_beside_the_runs_whatever_the_folder_is_called(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "sqlite:///mlflow.db")
    monkeypatch.delenv("WHICHLORA_STORAGE", raising=False)
    assert storage_file() == folder / "optuna.db"
    queue.Queue("q", queue.connect()).offer(["cell"])
    assert studies_state(folder / "optuna.db") == "complete"
    assert queue.connect()._file == str(folder / "optuna.db")
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert storage_url().startswith("sqlite:////")


KILLED_WHILE_WRITING = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that changes are written before the transaction ends
database.execute("BEGIN IMMEDIATE")
database.execute("CREATE TABLE x (y)")
database.executemany("INSERT INTO x VALUES (?)", [("y" * 3000,)] * 200)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_it_writes_leaves_a_usable_database(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    queue.connect(f"sqlite:///{file}").engine.dispose()
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(file)], check=False)
    assert file.with_name("optuna.db-journal").exists()
    assert studies_state(file) == "complete"
    with closing(sqlite3.connect(file)) as database:
        assert not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'x'").fetchall()
