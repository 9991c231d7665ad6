"""`compare` with real runs: from data to an answer, killed at random moments, and in two processes at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from invented import in_another_folder
from mlflow.tracking import MlflowClient

from comparing.methods import read_file
from comparing.record import find
from comparing.rule import Rule

RULE = Rule(seeds=(1,), max_seeds=4, margin=15.0, confidence=0.95, primary="mean")
OPTIONS = ("--file", "moods.yaml", "--max_seeds", "4", "--margin", "15", "--primary", "mean")


@pytest.fixture
def moods(moods_task: Path, tiny_model: str) -> Path:
    """A folder with an experiment that the tiny model learns in 72 steps, unless its learning rate is far too low."""
    sizes = {"train_size": 96, "validation_size": 6, "test_size": 40, "batch_size": 8, "epochs": 6}
    content = {
        "name": "moods",
        "defaults": {"task": "./task.yaml", "language": "tr", "model": tiny_model, **sizes},
        "arms": [
            {"variant": "lora", "learning_rate": 0.02},
            {"variant": "pissa", "learning_rate": 0.02},
            {"variant": "vera", "learning_rate": 0.0001},
        ],
    }
    (moods_task / "moods.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return moods_task


def start(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "whichlora.compare", *OPTIONS, *options]
    return subprocess.Popen(command, start_new_session=True)


def answer() -> dict[str, Any]:
    """Return what the comparison has found, and check that it has one run, and each of its runs exists once."""
    client, comparison = MlflowClient(), read_file("moods.yaml", RULE, given=False)
    (place,) = [e.experiment_id for e in client.search_experiments() if e.name == "moods"]
    assert len(client.search_runs([place], "tags.`whichlora.kind` = 'comparison'")) == 1
    runs = client.search_runs([place], "tags.`whichlora.kind` = 'run'")
    prints = [run.data.tags["whichlora.fingerprint"] for run in runs]
    assert len(prints) == len(set(prints))
    run = find(client, "moods", comparison.digest)
    assert run is not None
    assert run.info.status == "FINISHED"
    assert {r.data.tags["mlflow.parentRunId"] for r in runs} == {run.info.run_id}
    found = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/answer.json"))
    assert found["cost"]["runs"] == len(runs)
    assert found["cost"]["reused"] == 0
    assert found["cost"]["spent"] > 0
    return {key: found[key] for key in ("lead", "ended", "take", "seeds", "standings", "finished")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_with_the_answer_of_several_processes_at_once(moods: Path) -> None:
    """The latter are not interrupted, and one of them has two workers."""
    rng = random.Random(1)
    for _ in range(3):
        process = start()
        time.sleep(rng.uniform(8, 40))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start().wait(900) == 0
    interrupted = answer()
    assert {s["method"]: s["state"] for s in interrupted["standings"]}["VeRA"] == "dropped"

    in_another_folder(moods / "together")
    processes = [start(), start("--workers", "2")]
    assert [process.wait(900) for process in processes] == [0, 0]
    assert answer() == interrupted
