"""`compare` by two processes on PostgreSQL and MLflow servers, of which one dies in the middle of a run, and on Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest
from invented import in_another_folder
from mlflow.tracking import MlflowClient
from moods import answer, start
from optuna.trial import FrozenTrial, TrialState
from processes import end_all

from whichlora.scheduling.storage import storage_url

COMPLETE, RUNNING, FAIL = TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL


def trials() -> list[FrozenTrial]:
    """Return the trials of the queue, each of which is an attempt at the runs of one adapter."""
    storage = optuna.storages.RDBStorage(storage_url())
    try:
        names = [name for name in optuna.get_all_study_names(storage) if name.startswith("queue/")]
        return optuna.load_study(study_name=names[0], storage=storage).get_trials() if names else []
    finally:
        storage.engine.dispose()  # called several times a second, the server would run out of connections


def of(process: subprocess.Popen[bytes], state: TrialState) -> list[FrozenTrial]:
    """Return the trials of a process in this state."""
    return [t for t in trials() if t.state is state and f"/{process.pid}/" in str(t.user_attrs.get("worker"))]


def caught(victim: subprocess.Popen[bytes], other: subprocess.Popen[bytes]) -> FrozenTrial:
    """Wait until both processes have done a trial and one is in the middle of another; return that one."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert (victim.poll(), other.poll()) == (None, None)
        if of(victim, COMPLETE) and of(other, COMPLETE):
            for trial in of(victim, RUNNING):
                folder = Path(os.environ["WHICHLORA_WORK"]) / f"run-{trial.user_attrs['cell'][:16]}"
                if list(folder.glob("checkpoint-*/trainable.safetensors")):
                    return trial
        time.sleep(0.1)
    raise AssertionError("the process was never seen in the middle of a run")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_process_killed_in_the_middle_of_a_run_leaves_the_answer_of_an_uninterrupted_pass(
    moods: Path, request: pytest.FixtureRequest
) -> None:
    assert start().wait(900) == 0
    whole = answer()

    request.getfixturevalue("database")  # from here on, the servers
    log = moods / "survivor.log"
    with log.open("wb") as output:
        processes = victim, survivor = [start(), start(stdout=output, stderr=output)]
    try:
        lost = caught(victim, survivor)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        assert survivor.wait(900) == 0, log.read_text()[-3000:]
    finally:
        end_all(processes)
    assert answer() == whole

    done = Counter(trial.user_attrs["cell"] for trial in trials() if trial.state is COMPLETE)
    assert done == dict.fromkeys(done, 1)  # nothing was done twice
    assert [trial.number for trial in of(victim, FAIL)] == [lost.number]
    assert lost.user_attrs["cell"] in {trial.user_attrs["cell"] for trial in of(survivor, COMPLETE)}
    assert "Resuming from checkpoint-" in log.read_text()  # and not from the beginning
    ids = [experiment.experiment_id for experiment in MlflowClient().search_experiments()]
    (resumed,) = MlflowClient().search_runs(ids, "tags.`whichlora.kind` = 'run' and tags.`whichlora.resumed` = 'true'")
    assert resumed.data.tags["whichlora.training_fingerprint"] == lost.user_attrs["cell"]


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tasks_of_ray_come_to_the_answer_of_one_process(moods: Path) -> None:
    assert start().wait(900) == 0
    alone = answer()

    in_another_folder(moods / "ray")
    process = start("--engine", "ray", "--workers", "2")
    assert process.wait(900) == 0
    assert answer() == alone
    workers = {str(trial.user_attrs["worker"]).rsplit("/", 2)[1] for trial in trials()}
    assert len(workers) > 1  # each of the two tasks did some of the runs
    assert str(process.pid) not in workers
