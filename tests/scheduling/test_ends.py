"""Commands that get a signal: real processes save checkpoints, mark runs and trials, and end with their workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
import psutil
import pytest
import yaml
from launching import PROJECT
from optuna.trial import TrialState
from processes import end_all, heed_interrupts
from runs import plan_of, run_of

from whichlora.testing.runs import predictions_of

LONG = {"train_size": "160", "validation_size": "6", "test_size": "6", "batch_size": "8", "learning_rate": "0.01"}
LONG |= {"epochs": "2"}
EXIT = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    end_all(STARTED)
    STARTED.clear()


def start(folder: Path, *command: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start a module in a process group of its own; its output is in `folder/log`."""
    path = os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([path, *filter(None, sys.path)]), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
    STARTED.append(process)
    return process


def words(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def until(condition: Callable[[], Any], folder: Path, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        assert STARTED[-1].poll() is None, (folder / "log").read_text()[-3000:]
        time.sleep(0.05)
    raise AssertionError((folder / "log").read_text()[-3000:])


def steps(folder: Path) -> bool:
    """Return whether a training has taken some steps, according to its progress bar."""
    return any(f"| {step}/" in (folder / "log").read_text() for step in range(3, 40))


def states(kind: str = "run") -> list[str]:
    client = mlflow.MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.status for run in client.search_runs(ids, f"tags.`whichlora.kind` = '{kind}'")]


def trial_states() -> list[TrialState]:
    """Return the states of all trials of all queues and studies."""
    if not Path("optuna.db").exists():
        return []
    storage = optuna.storages.RDBStorage("sqlite:///optuna.db")
    found = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    result = [trial.state for study in found for trial in study.get_trials(deepcopy=False)]
    storage.engine.dispose()
    return result


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in psutil.Process(process.pid).children(recursive=True) if "python" in p.name()]


def check_resumed(model: str, folder: Path, **options: str) -> None:
    """Check that the run resumes from a checkpoint to the predictions of an uninterrupted run."""
    client = mlflow.MlflowClient()
    resumed = run_of(plan_of(model, **LONG, **options), experiment="whichlora")
    whole = run_of(plan_of(model, **LONG, **options), experiment="whole")
    assert client.get_run(resumed.run_id).data.tags["whichlora.resumed"] == "true"
    for name in ("en", "tl"):
        pd.testing.assert_frame_equal(predictions_of(resumed.run_id, name), predictions_of(whole.run_id, name))
    assert resumed.metrics["train/best_step"] == whole.metrics["train/best_step"]
    assert states() == ["FINISHED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_training_saves_a_checkpoint_and_resumes_from_it(
    store: Path, tiny_model: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(store, "whichlora.run", *words(LONG), "--model", tiny_model)
    until(lambda: steps(store), store)
    process.send_signal(number)
    assert process.wait(60) == EXIT[number]
    log = (store / "log").read_text()
    assert f"Ended by {number.name}." in log
    assert "Traceback" not in log
    assert states() == ["KILLED"]
    (mark,) = store.glob("whichlora-work/run-*/checkpoint-*/complete.json")
    check_resumed(tiny_model, store)
    assert f"Resuming from {mark.parent.name}." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.0])
def test_a_run_that_does_not_train_yet_is_marked(store: Path, tiny_model: str, seconds: float) -> None:
    longer = LONG | {"epochs": "40"}  # a fast machine finishes LONG within two seconds
    process = start(store, "whichlora.run", *words(longer), "--model", tiny_model)
    until(lambda: "RUNNING" in states(), store)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert states() == ["KILLED"]


@pytest.mark.slow
def test_a_run_that_scores_is_marked_and_does_not_train_again(store: Path, tiny_model: str) -> None:
    options = LONG | {"test_size": "900"}
    process = start(store, "whichlora.run", *words(options), "--model", tiny_model)
    until(lambda: list(store.glob("whichlora-work/run-*/trained.json")), store)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert states() == ["KILLED"]
    run_of(plan_of(tiny_model, **options), experiment="whichlora")
    assert states() == ["FINISHED"]


@pytest.fixture
def grid(store: Path, tiny_model: str) -> Path:
    """An experiment of three runs."""
    defaults = {"model": tiny_model, **LONG, "train_size": 600}
    content = {"name": "grid", "defaults": defaults, "arms": [{"variant": "lora", "seed": [1, 2, 3]}]}
    (store / "grid.yaml").write_text(yaml.safe_dump(content))
    return store / "grid.yaml"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to all", "SIGKILL"])
def test_the_workers_of_an_experiment_end_with_it(store: Path, grid: Path, how: str) -> None:
    process = start(store, "whichlora.experiment", "--file", str(grid), "--workers", "2")
    until(lambda: states().count("RUNNING") == 2, store)
    time.sleep(1)
    children = descendants(process)
    assert len(children) == 2
    if how == "SIGINT to all":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.Signals[how])
    assert process.wait(60) == {"SIGTERM": 143, "SIGINT to all": 130, "SIGKILL": -9}[how]
    _, alive = psutil.wait_procs(children, 30)
    assert not alive
    assert "RUNNING" not in states()
    assert "KILLED" in states()
    assert TrialState.RUNNING not in trial_states()
    again = start(store, "whichlora.experiment", "--file", str(grid))
    assert again.wait(600) == 0, (store / "log").read_text()[-3000:]
    assert states() == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_in_lockstep_save_their_checkpoints(store: Path, grid: Path) -> None:
    process = start(store, "whichlora.experiment", "--file", str(grid), "--pack", "3")
    until(lambda: steps(store), store)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert states() == ["KILLED"] * 3
    assert len(list(store.glob("whichlora-work/run-*/checkpoint-*/complete.json"))) == 3
    assert TrialState.RUNNING not in trial_states()
    again = start(store, "whichlora.experiment", "--file", str(grid), "--pack", "3")
    assert again.wait(600) == 0, (store / "log").read_text()[-3000:]
    assert states() == ["FINISHED"] * 3
    assert (store / "log").read_text().count("Resuming from checkpoint-") == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_trials_of_a_study_are_marked_and_resumed(store: Path, tiny_model: str, workers: str) -> None:
    options = {"trials": "2", "model": tiny_model, "pruner": "none", **LONG}
    del options["learning_rate"]
    options |= {"target_modules": "all-linear", "train_size": "600"}
    process = start(store, "tuning.tune", *words(options), "--workers", workers)
    until(lambda: states("trial").count("RUNNING") == int(workers), store)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, (store / "log").read_text()[-3000:]
    assert states("trial") == ["KILLED"] * int(workers)
    assert states("study") == ["KILLED"]
    assert TrialState.RUNNING not in trial_states()
    assert trial_states().count(TrialState.WAITING) >= int(workers)
    again = start(store, "tuning.tune", *words(options))
    assert again.wait(600) == 0, (store / "log").read_text()[-3000:]
    assert set(states("trial")) == {"FINISHED"}
    assert states("study") == ["FINISHED"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_the_tasks_of_a_ray_cluster_save_checkpoints(store: Path, grid: Path) -> None:
    process = start(store, "whichlora.experiment", "--file", str(grid), "--workers", "2", "--engine", "ray")
    until(lambda: states().count("RUNNING") == 2, store)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, (store / "log").read_text()[-3000:]
    assert "RUNNING" not in states()
    assert "KILLED" in states()
    assert TrialState.RUNNING not in trial_states()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "launch"), [(signal.SIGTERM, "KILLED"), (signal.SIGINT, "FAILED")])
def test_a_run_of_mlflow_run_ends_with_it(store: Path, tiny_model: str, number: signal.Signals, launch: str) -> None:
    parameters = [part for name, value in (LONG | {"model": tiny_model}).items() for part in ("-P", f"{name}={value}")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = start(store, "mlflow", "run", str(PROJECT), *parameters, "--env-manager", "local", PATH=path)
    until(lambda: steps(store), store)
    children = descendants(process)
    process.send_signal(number)
    process.wait(60)
    psutil.wait_procs(children, 60)
    assert states() == ["KILLED"], (store / "log").read_text()[-3000:]
    assert states("launch") == [launch]
    assert list(store.glob("whichlora-work/run-*/checkpoint-*/complete.json"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["launcher", "a rank"])
def test_the_ranks_of_accelerate_launch_save_one_checkpoint(store: Path, tiny_model: str, target: str) -> None:
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    flags += " --main_process_port 0"
    command = ["accelerate.commands.launch", *flags.split(), "-m", "whichlora.run"]
    process = start(store, *command, *words(LONG), "--model", tiny_model)
    until(lambda: steps(store), store)
    children = descendants(process)
    (process if target == "launcher" else children[-1]).send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    _, alive = psutil.wait_procs(children, 30)
    assert not alive
    assert states() == ["KILLED"], (store / "log").read_text()[-3000:]
    (mark,) = store.glob("whichlora-work/run-*/checkpoint-*/complete.json")
    assert len(list(mark.parent.glob("rng_state_*"))) == 2
