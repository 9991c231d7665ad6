"""Fault tolerance of workers that die, are suspended, or lose the database, on real PostgreSQL and MLflow servers.

The workers share only the two URLs and the artifact location, which also holds the checkpoints.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from processes import end_all

from tuning.study_status import PREFIX, connect, names

PROJECT = Path(__file__).parents[2]
STARTED: list[subprocess.Popen[bytes]] = []
GRACE = 8
TRIALS = 10
OPTIONS = {"trials": TRIALS, "train_size": 600, "validation_size": 6, "test_size": 6, "batch_size": 8, "epochs": 1}
OPTIONS |= {"reports": 2, "space": "continuous", "pruner": "none", "target_modules": "all-linear"}


@pytest.fixture(autouse=True)
def workers(database: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers be declared dead soon and store a checkpoint at every opportunity, and end those that are left."""
    monkeypatch.setenv("WHICHLORA_GRACE_SECONDS", str(GRACE))
    monkeypatch.setenv("WHICHLORA_CHECKPOINT_SECONDS", "0")
    yield
    end_all(STARTED)
    STARTED.clear()


def until(condition: Callable[[], Any], *, seconds: float = 400) -> Any:
    """Wait until `condition()` is true and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not true within {seconds} s")


def start(folder: Path, model: str) -> subprocess.Popen[bytes]:
    """Start a worker in a new folder."""
    folder.mkdir()
    options = {**OPTIONS, "model": model}
    command = [sys.executable, "-m", "tuning.tune", *(p for n, v in options.items() for p in (f"--{n}", str(v)))]
    path = os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])
    with (folder / "log").open("w") as log:
        worker = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    STARTED.append(worker)
    return worker


def trials() -> list[FrozenTrial]:
    storage = connect()
    try:
        (name,) = names(storage) or [None]
        return optuna.load_study(study_name=PREFIX + name, storage=storage).get_trials() if name else []
    finally:
        storage.engine.dispose()  # called ten times a second, the server would run out of connections


def training(worker: subprocess.Popen[bytes], *, after: int = 0) -> FrozenTrial | None:
    """Return the trial with a number of at least `after` that a worker is in the middle of, if there is one."""
    for trial in trials():
        same_worker = f"/{worker.pid}/" in str(trial.user_attrs.get("worker"))
        if trial.number >= after and same_worker and trial.state is TrialState.RUNNING and trial.intermediate_values:
            return trial
    return None


def original_number(trial: FrozenTrial) -> int:
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


@pytest.mark.slow
def test_whatever_happens_to_workers_and_database_no_trial_is_lost_or_repeated(
    database: Any, tmp_path: Path, tiny_model: str, record_property: Callable[[str, object], None]
) -> None:
    table: list[dict[str, object]] = []

    def note(fault: str, before: list[FrozenTrial]) -> None:
        done = {t.number for t in before if t.state is TrialState.COMPLETE}
        after = [t for t in trials() if t.state is TrialState.COMPLETE]
        lost = len(done - {t.number for t in after})
        repeated = sum(n - 1 for n in Counter(original_number(t) for t in after).values())
        row = {"fault": fault, "complete before": len(done), "complete at the end": len(after)}
        table.append({**row, "lost": lost, "repeated": repeated})

    victim, sleeper = start(tmp_path / "a", tiny_model), start(tmp_path / "b", tiny_model)
    killed = until(lambda: training(victim, after=2))
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    at_kill = trials()

    slept = until(lambda: training(sleeper, after=4))
    os.killpg(sleeper.pid, signal.SIGSTOP)
    at_sleep = trials()
    other = start(tmp_path / "c", tiny_model)
    until(lambda: any(original_number(t) == original_number(slept) and t.number > slept.number for t in trials()))
    os.killpg(sleeper.pid, signal.SIGCONT)

    until(lambda: training(other))
    at_stop = trials()
    database.stop()
    time.sleep(10)
    database.start()
    joined = start(tmp_path / "d", tiny_model)
    at_join = trials()
    for worker in (sleeper, other, joined):
        assert worker.wait(600) == 0, (tmp_path / "c" / "log").read_text()[-3000:]

    finished = trials()
    note("a worker killed in the middle of a trial", at_kill)
    note(f"a worker suspended for more than the {GRACE} s of grace", at_sleep)
    note("the database stopped for 10 s", at_stop)
    note("a new worker", at_join)
    record_property("faults", json.dumps(table))
    print(json.dumps(table, indent=1))

    assert [t.number for t in finished] == list(range(len(finished)))  # no gaps
    assert {t.state for t in finished} <= {TrialState.COMPLETE, TrialState.FAIL}
    complete = [t for t in finished if t.state is TrialState.COMPLETE]
    assert len(complete) == TRIALS
    assert len({original_number(t) for t in complete}) == TRIALS  # no trial was completed twice
    assert all(row["lost"] == 0 and row["repeated"] == 0 for row in table)
    for lost in (killed, slept):
        (retried,) = [t for t in complete if original_number(t) == original_number(lost)]
        assert retried.number != lost.number
        assert retried.params == lost.params
        assert retried.intermediate_values.items() >= lost.intermediate_values.items()

    client = MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, "tags.`whichlora.kind` = 'trial'")
    of_trials = [run for run in runs if not run.data.tags["whichlora.trial"].startswith("fresh")]
    by_trial = Counter(run.data.tags["whichlora.trial"] for run in of_trials)
    assert by_trial == dict.fromkeys(
        (str(original_number(t)) for t in complete), 1
    )  # a trial is one run, however often it was resumed
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_id for run in of_trials} == {t.user_attrs["run_id"] for t in complete}
    for run in runs:  # wherever they were resumed, and where their checkpoints were not found
        assert "adapter/adapter_model.safetensors" in {
            a.path for a in client.list_artifacts(run.info.run_id, "adapter")
        }
    resumed = next(run for run in of_trials if run.data.tags["whichlora.trial"] == str(killed.number))
    assert resumed.data.tags["whichlora.resumed"] == "true"
    logs = "".join((tmp_path / name / "log").read_text() for name in "bcd")
    assert "Resuming from checkpoint-" in logs  # and not from the beginning
    assert len(client.search_runs(ids, "tags.`whichlora.kind` = 'study'")) == 1
