"""Commands say what they wait for, once, on stderr, and an error comes alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from whichlora import announcements
from whichlora.announcements import announce, announced
from whichlora.training.progress import TimeEstimate


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been said yet, and patience is short."""
    monkeypatch.setattr(announcements, "_said", set())
    monkeypatch.setattr(announcements, "_PATIENCE", 0.05)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


def test_a_line_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("Loading.", "Loading.", "", "Scoring\x1b[31m."):
        announce(text)
    announce("Training takes 1 min.", key="training")
    announce("Training takes 2 min.", key="training")
    assert capsys.readouterr() == ("", "Loading.\nScoring\\x1b[31m.\nTraining takes 1 min.\n")


def test_only_a_long_wait_is_announced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with announced("quick"):
        pass
    with pytest.raises(ValueError, match="bad"), announced("an error"):
        raise ValueError("bad")
    with announced("slow"):
        time.sleep(0.5)
        assert capsys.readouterr().err == "slow\n"
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_a_wait_is_said_at_its_end_and_an_error_comes_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with announced("quick"):
        pass

    @announced("an error", logged=True)
    def fail() -> None:
        time.sleep(0.1)
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    with announced("of a command whose output a program reads"):
        time.sleep(0.1)
    with announced("Reading the data.", logged=True):
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "Reading the data: 0 s.\n"


def test_workers_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.scheduling.jobs import mark_worker

    for name, value in mark_worker(0).items():
        monkeypatch.setenv(name, value)
    announce("Loading.")
    assert capsys.readouterr().err == ""


def test_training_says_after_some_steps_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100, 10_000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    estimate = TimeEstimate()
    for step in range(1, 20):  # the first step takes longer, and is not measured; then 6 s each
        estimate.on_step_end(None, SimpleNamespace(global_step=step, max_steps=205, is_world_process_zero=True), None)
    # 20 s have passed after four steps; 200 are left.
    assert capsys.readouterr().err == "Training takes about 20 min more: 205 steps of 6 s, measured on 4.\n"


def test_a_short_training_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = TimeEstimate()
    for step in range(1, 20):
        estimate.on_step_end(None, SimpleNamespace(global_step=step, max_steps=20, is_world_process_zero=True), None)
    assert capsys.readouterr().err == ""


def test_a_wait_for_another_process_that_creates_the_database_is_said(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "TQDM_"))}
    with (
        FileLock(tmp_path / "mlflow.db.lock") as lock,
        subprocess.Popen(
            [sys.executable, "-m", "whichlora.database"], cwd=tmp_path, env=own, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Waiting: another process is creating or changing the database ")
        lock.release()
        rest = process.stderr.read()
        assert process.wait() == 0, rest
    assert "INFO" not in rest  # of MLflow and alembic
    assert (tmp_path / "mlflow.db").stat().st_size
