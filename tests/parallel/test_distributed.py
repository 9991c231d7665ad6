"""Two processes under `accelerate launch` train as one process does, and only one of them writes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest

from whichlora.errors import NonFiniteError, OptionError, ProofError
from whichlora.parallel import distributed
from whichlora.training import checkpoints

# With 41 items in steps of 8, one process has no item in the last step.
SIZES = {"train_size": 41, "validation_size": 6, "test_size": 9, "batch_size": 8, "learning_rate": 0.01, "epochs": 2}


def start(model: str, count: int, **options: object) -> subprocess.Popen[str]:
    """Start a run in `count` processes with the test's tracking database."""
    arguments = [f"--{name}={value}" for name, value in {**SIZES, "model": model, **options}.items()]
    command = [sys.executable, "-m", "whichlora.run", *arguments]
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = f"--multi_gpu --num_processes {count} --num_machines 1 --mixed_precision no --dynamo_backend no"
        launch = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), "--main_process_port", str(port)]
        command = [*launch, *command[1:]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ.copy())


def finished(started: subprocess.Popen[str]) -> str:
    text, _ = started.communicate(timeout=500)
    assert started.returncode == 0, text
    return text


def the_run() -> mlflow.entities.Run:
    client = mlflow.MlflowClient()
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(everywhere, "tags.`whichlora.kind` = 'run'")
    return run


def losses(run: mlflow.entities.Run) -> dict[int, float]:
    return {
        point.step: point.value for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    }


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch, tiny_model: str) -> None:
    from runs import plan_of

    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(OptionError, match="batch_size=8: must be a multiple of the 3 processes"):
        plan_of(tiny_model)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert plan_of(tiny_model).spec.batch_size == 8


def test_a_single_process_waits_for_nobody() -> None:
    distributed.barrier()
    distributed.finish()
    assert distributed.all_reduce_sum(3, 1.5) == (3, 1.5)
    assert distributed.on_all_ranks(max, 1, 2, key=lambda value: -value) == 1


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lora", "molf", "hybrid-lora"])
def test_two_processes_have_the_results_of_one_even_after_one_was_killed(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """In `molf` each process routes the updates, and in `hybrid-lora` the leader chooses the layers for all."""
    options = {"variant": variant, **({"alpha": 32} if variant == "molf" else {})}
    finished(start(tiny_model, 1, **options))
    alone = the_run()
    losses_alone = losses(alone)
    assert losses_alone

    for name in ("two", "killed"):
        folder = store / name
        folder.mkdir()
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        if name == "killed":
            monkeypatch.setenv("WHICHLORA_CHECKPOINT_SECONDS", "0")
            kill_one(start(tiny_model, 2, **options), folder / "whichlora-work")
        finished(start(tiny_model, 2, **options))
        run = the_run()
        assert ("whichlora.resumed" in run.data.tags) == (name == "killed")
        assert losses(run) == pytest.approx(losses_alone, rel=1e-4)
        for metric in ("test/en/f1", "test/tl/f1", "train/best_step", "adapter/trainable_parameters"):
            assert run.data.metrics[metric] == alone.data.metrics[metric]
        share = "train/update_share/lora_1"
        assert run.data.metrics.get(share) == alone.data.metrics.get(share)
        assert run.data.params.get("fully_trained") == alone.data.params.get("fully_trained")


def kill_one(started: subprocess.Popen[str], work: Path) -> None:
    """Kill the rank that does not lead once there is a checkpoint; the launcher then ends the other."""
    while not any(checkpoints.last_complete(folder) for folder in work.glob("run-*") if folder.is_dir()):
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.005)
    (follower,) = [p for p in psutil.Process(started.pid).children() if p.environ().get("RANK") == "1"]
    follower.send_signal(signal.SIGKILL)
    started.communicate(timeout=300)
    assert started.returncode != 0


@pytest.mark.slow
def test_a_bad_option_is_reported_once_and_ends_both_processes(store: Path, tiny_model: str) -> None:
    started = start(tiny_model, 2, batch_size=5)
    text, _ = started.communicate(timeout=300)
    assert started.returncode != 0
    assert text.count("error: batch_size=5: must be a multiple of the 2 processes") == 1


@pytest.mark.slow
def test_a_run_that_diverges_ends_in_every_process(store: Path, tiny_model: str) -> None:
    started = start(tiny_model, 2, variant="lora", learning_rate=1, alpha=100000, epochs=3)
    text, _ = started.communicate(timeout=500)
    assert started.returncode != 0
    assert text.count("error: the ") == 1, text
    assert "at step" in text
    run = the_run()
    assert run.info.status == "FAILED"
    assert run.data.tags["whichlora.error"].startswith("NonFiniteError: ")


@pytest.mark.parametrize("leads", [True, False])
def test_an_error_of_the_leader_is_raised_by_all(monkeypatch: pytest.MonkeyPatch, leads: bool) -> None:
    def fail() -> None:
        raise NonFiniteError("the scores are nan")

    monkeypatch.setattr(distributed, "all_reduce_sum", lambda failed: (1.0,))
    with pytest.raises(ProofError, match="scores are nan" if leads else "leading process"):
        distributed.on_leader(fail if leads else None)
    monkeypatch.setattr(distributed, "all_reduce_sum", lambda failed: (0.0,))
    distributed.on_leader((lambda: None) if leads else None)
    assert distributed.from_leader(lambda: 3) == 3
