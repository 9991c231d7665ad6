"""Carries out small runs, tracks them in a folder, and reads their predictions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import pandas as pd
import torch

from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.models.memory import freeze_gc
from whichlora.run.pipeline import run
from whichlora.run.summary import Result
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker

SMALL = {
    **{"train_size": "40", "validation_size": "6", "test_size": "9", "batch_size": "8", "learning_rate": "0.01"},
    "latency": "false",
}
"""Options of a run of five steps, whose inference is not measured."""


def move_adapter(model: Any, by: float) -> None:
    """Add normal values with an SD of `by` to the trained tensors of a model: many adapters have no effect at start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * by)


@contextmanager
def tracking_in(folder: Path, work: str | None = None) -> Iterator[None]:
    """Track the runs of this process and its children in `folder`, with work folders in its subfolder `work`."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    names = ("MLFLOW_TRACKING_URI", "WHICHLORA_WORK")
    before, uri_before = {name: os.environ.get(name) for name in names}, mlflow.get_tracking_uri()
    uri = f"sqlite:///{quote(str(folder / 'mlflow.db'))}"
    try:
        mlflow.set_tracking_uri(uri)
        os.environ["MLFLOW_TRACKING_URI"] = uri
        os.environ["WHICHLORA_WORK"] = str(folder / (work or "whichlora-work"))
        yield
    finally:
        mlflow.set_tracking_uri(uri_before)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def small_plan(model: str | Path, settings: Mapping[str, Any] | None = None, **options: Any) -> Plan:
    """Resolve the plan of a run on `model` with the options `SMALL`, overridden by `options`.

    `settings` are the variant's own.
    """
    defaults = {name: default for name, (default, _) in RUN_OPTIONS.items()}
    texts = {**SMALL, **{name: str(value) for name, value in options.items()}}
    if texts.get("variant") == "none":
        texts.pop("learning_rate"), texts.pop("batch_size")
    plan = resolve(parse_options({**defaults, **texts, "model": str(model)}), settings)
    freeze_gc()
    return plan


def run_plan(plan: Plan, experiment: str = "tests") -> Result:
    """Carry out a plan, tracked in the current tracking database."""
    return run(plan, Tracker(connect(), experiment))


def predictions_of(run_id: str, test_set: str) -> pd.DataFrame:
    """Return the predictions that a run logged for a test set, such as `en` or `tl`: one row per item."""
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="predictions")
    return pd.read_parquet(Path(folder) / f"{test_set}.parquet")
