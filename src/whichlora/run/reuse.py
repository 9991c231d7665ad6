"""Reuses the adapter of a finished run with the same training fingerprint, and its scores on the same items.

At ratio 0 the target language has no effect on training, so one adapter serves the runs of all languages.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError, safe_open

from whichlora.config.plan import Plan
from whichlora.errors import DamagedError
from whichlora.tracking.model_files import ADAPTER
from whichlora.tracking.runs import Tracker
from whichlora.training.adapter import name_base
from whichlora.training.fit import TrainingRecord

UNREADABLE = (MlflowException, OSError, DamagedError)
"""Exceptions for an artifact that is missing or damaged."""
_COLUMNS = "columns"
_TRAINING_METRICS = ("adapter/", "train/", "gpu/", "host/")


@dataclass(frozen=True, kw_only=True)
class TestScores:
    """Scores on a test set: metrics without their prefix, and predictions."""

    metrics: dict[str, float]
    predictions: pd.DataFrame


def reuse_adapter(plan: Plan, tracker: Tracker, work: Path) -> TrainingRecord | None:
    """Download the adapter of a finished run of the experiment with the same training fingerprint to `work/adapter`.

    Returns:
        The record of its training; None if there is no such run or its adapter was deleted or cut.
    """
    run = tracker.find("run", status="FINISHED", training_fingerprint=plan.spec.training_fingerprint)
    if run is None:
        return None
    try:
        adapter = Path(tracker.client.download_artifacts(run.info.run_id, ADAPTER, str(work)))
        for path in adapter.rglob("*.safetensors"):
            with safe_open(path, framework="pt"):
                pass
        if plan.variant.has_adapter:
            name_base(adapter, plan.source)  # runs of earlier versions named a folder of their machine
    except (MlflowException, OSError, ValueError, SafetensorError):  # the adapter was deleted, e.g. to save space
        shutil.rmtree(work / "adapter", ignore_errors=True)
        return None
    history = tracker.client.get_metric_history(run.info.run_id, "train/loss")
    metrics = {k: v for k, v in run.data.metrics.items() if k.startswith(_TRAINING_METRICS) and k != "train/loss"}
    losses = sorted((point.step, point.value) for point in history)
    return TrainingRecord(predicted={}, losses=losses, metrics=metrics, source=run.info.run_id)


def reusable_test_scores(plan: Plan, tracker: Tracker, run_id: str, scratch: Path) -> dict[str, TestScores]:
    """Return the scores of the run `run_id`, which has the same adapter, on test sets with the same items.

    Predictions are downloaded to the folder `scratch`; a test set without them is omitted.
    """
    run = tracker.client.get_run(run_id)
    digests = logged_digests(run)
    known = {}
    for name, test in plan.tests.items():
        if digests.get(name) == test.digest:
            try:
                predictions = download_predictions(tracker, run_id, name, scratch)
            except UNREADABLE:
                continue
            prefix = f"test/{name}/"
            metrics = {k.removeprefix(prefix): v for k, v in run.data.metrics.items() if k.startswith(prefix)}
            known[name] = TestScores(metrics=metrics, predictions=predictions)
    return known


def logged_digests(run: Run) -> dict[str, str]:
    """Return the digests of what a finished run was scored on, by name of the test set or general text."""
    digests: dict[str, str] = json.loads(run.data.params["test_digests"])
    return digests


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions with checksums of the values and a copy of the names of the columns.

    By them `download_predictions` notices damage.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions = predictions.copy(deep=False)
    predictions.attrs = {_COLUMNS: list(predictions.columns)}
    predictions.to_parquet(path, write_page_checksum=True)


def download_predictions(tracker: Tracker, run_id: str, name: str, scratch: Path) -> pd.DataFrame:
    """Return the predictions that a run logged for the test set `name`, downloaded to the folder `scratch`.

    Raises:
        MlflowException, OSError, DamagedError: The artifact is missing or damaged.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    path = Path(tracker.client.download_artifacts(run_id, f"predictions/{name}.parquet", str(scratch)))
    try:
        predictions = pd.read_parquet(path, page_checksum_verification=True)
    except Exception as error:  # which one depends on the damaged byte
        raise DamagedError(path) from error
    if predictions.attrs.get(_COLUMNS, list(predictions.columns)) != list(predictions.columns):
        raise DamagedError(path)
    return predictions
