"""A task of which real runs of the tiny model take a second, a comparison on it, and what that has found."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.tracking import MlflowClient

from comparing.methods import read_file
from comparing.record import find
from comparing.rule import Rule

TASK = {
    "task": "moods",
    "kind": "choice",
    "languages": ["de", "tr"],
    "source": "de",
    "data": {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
    "fields": {"id": "id", "text": "text", "answer": "answer"},
    "labels": ["gut", "mies"],
    "prompt": "{{ text }}\n",
}
WORDS = {"de": (("fein", "toll"), ("lahm", "öde")), "tr": (("iyi", "hoş"), ("kötü", "yavaş"))}
RULE = Rule(seeds=(1,), max_seeds=4, margin=15.0, confidence=0.95, primary="mean")
OPTIONS = ("--file", "moods.yaml", "--max_seeds", "4", "--margin", "15", "--primary", "mean")
SIZES = {"train_size": 96, "validation_size": 6, "test_size": 40, "batch_size": 8, "epochs": 6}


def write_task(folder: Path) -> None:
    """Write the task and its data."""
    rng = random.Random(0)
    for language, words in WORDS.items():
        for split, count in (("train", 200), ("test", 40)):
            lines = ["id,text,answer"]
            for i in range(count):
                text = " ".join(rng.choice(words[i % 2]) for _ in range(4))
                lines.append(f"{split}{i},{text} {split} {i},{TASK['labels'][i % 2]}")
            (folder / f"{split}-{language}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK, allow_unicode=True), encoding="utf-8")


def write_experiment(folder: Path, model: str) -> None:
    """Write an experiment that the tiny model learns in 72 steps, unless its learning rate is far too low."""
    content = {
        "name": "moods",
        "defaults": {"task": str(folder / "task.yaml"), "language": "tr", "model": model, **SIZES},
        "arms": [
            {"variant": "lora", "learning_rate": 0.02},
            {"variant": "pissa", "learning_rate": 0.02},
            {"variant": "vera", "learning_rate": 0.0001},
        ],
    }
    (folder / "moods.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def start(*options: str, **process: Any) -> subprocess.Popen[bytes]:
    """Start the command in the current folder, in a session of its own.

    Args:
        options: further options of the command.
        process: arguments of `Popen`.
    """
    command = [sys.executable, "-m", "whichlora.compare", *OPTIONS, *options]
    return subprocess.Popen(command, start_new_session=True, **process)


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
