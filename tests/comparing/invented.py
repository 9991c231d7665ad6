"""Comparisons of the tiny model, and invented results of their runs, so that nothing is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import LoggedModelStatus, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from comparing.comparison import Comparison
from comparing.methods import read_file
from comparing.rule import Rule
from whichlora.config.plan import Plan
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.run_log import param_text

SIZES = {"train_size": 40, "validation_size": 6, "test_size": 60, "batch_size": 8, "learning_rate": 0.01}
ARMS = ({"variant": "lora"}, {"variant": "pissa"}, {"variant": "vera"})
PARAMETERS = {"lora": 2000, "pissa": 1000, "vera": 100}
CLEAR = {
    "lora": (90, 92, 91, 89, 90, 91),
    "pissa": (89.9, 92.1, 91, 88.8, 90.1, 91.1),
    "vera": (70, 69, 71, 70, 68, 70),
}
"""Points by variant, one for each seed: two are level, and one is far behind."""


def write(folder: Path, model: str, *, arms: Sequence[Mapping[str, Any]] = ARMS, **defaults: Any) -> str:
    """Write the file of an experiment called `invented` and return its path."""
    content = {"name": "invented", "defaults": {**SIZES, "model": model, **defaults}, "arms": [dict(a) for a in arms]}
    path = folder / "invented.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def rule(**fields: Any) -> Rule:
    usual = {"seeds": (1,), "max_seeds": 10, "margin": 1.0, "confidence": 0.95, "primary": "tl"}
    return Rule(**{**usual, **fields})


def read(file: str, **fields: Any) -> Comparison:
    return read_file(file, rule(**fields), given=False)


def in_another_folder(folder: Path) -> None:
    """Let this process and its children use a new database; the fixture `store` puts back the old one."""
    folder.mkdir()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_TRACKING_URI"] = uri


def log_scores(comparison: Comparison, points: Mapping[str, Sequence[float]] = CLEAR, **fields: Any) -> None:
    """Log a finished run for each score: of the same seed for all methods, in all their languages.

    Args:
        points: by variant, from the first seed on.
        fields: see `log_run`.
    """
    for index in range(max(map(len, points.values()))):
        for plans in comparison.plans(comparison.rule.rounds[index]).values():
            for plan in plans:
                scores = points[plan.spec.variant]
                if index < len(scores):
                    log_run(plan, scores[index], **fields)


def log_run(
    plan: Plan,
    points: float,
    *,
    floor: float = 40,
    seconds: float = 60,
    parent: str | None = None,
    error: str | None = None,
    model: bool = False,
) -> str:
    """Log the run of a plan with invented scores, equal in all languages, and return its id."""
    client, spec = connect(), plan.spec
    place = experiment_id(client, "invented")
    run_id = client.create_run(place, start_time=1_000_000).info.run_id
    params = {**spec.to_dict(), "source_language": plan.task.source or "none", "headline": plan.task.headline}
    tags = {"kind": "run", "fingerprint": spec.fingerprint, "training_fingerprint": spec.training_fingerprint}
    metrics = {"adapter/trainable_parameters": PARAMETERS[spec.variant], "train/seconds": seconds / 2}
    for role in ("en", "tl") if plan.task.source else ("tl",):
        metrics |= {f"test/{role}/f1": points / 100, f"base/{role}/f1": 0.3, f"floor/{role}/overlap": floor / 100}
    client.log_batch(
        run_id,
        metrics=[] if error else [Metric(key, value, 0, 0) for key, value in metrics.items()],
        params=[Param(key, param_text(value)) for key, value in params.items()],
        tags=[
            *(RunTag(f"whichlora.{key}", value) for key, value in tags.items()),
            *([RunTag("whichlora.error", error)] if error else []),
            *([RunTag(MLFLOW_PARENT_RUN_ID, parent)] if parent else []),
        ],
    )
    if model:
        logged = client.create_logged_model(place, name="adapter", source_run_id=run_id)
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.set_terminated(run_id, "FAILED" if error else "FINISHED", end_time=1_000_000 + round(seconds * 1000))
    return str(run_id)
