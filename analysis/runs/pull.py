"""Pulls the runs of experiments from MLflow, and tidies them together with results from files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.tracking import MlflowClient

from analysis.runs.result_files import ResultFiles
from analysis.runs.tidy import NUMBERS, Runs, required_columns, tidy
from analysis.runs.validity import defects, digest_of_english
from whichlora.tracking.client import search_all

if TYPE_CHECKING:
    from mlflow.entities import Run

_TAGS = ("fingerprint", "training_fingerprint", "adapter_of", "error", "synthetic", "place")
NO_FILES = ResultFiles()


def pull(client: MlflowClient | None, experiments: Mapping[str, str], files: ResultFiles = NO_FILES) -> Runs:
    """Read all runs of the experiments (ids by name), page by page, and tidy them together with results from files.

    Without experiments there need not be a client.
    """
    names_by_id = {number: name for name, number in experiments.items()}
    runs: list[Run] = []
    if client is not None and experiments:
        runs = list(search_all(client.search_runs, list(names_by_id), order_by=["attributes.start_time ASC"]))
    kinds = Counter(run.data.tags.get("whichlora.kind", "of another program") for run in runs)
    rows = [row_of(run, names_by_id) for run in runs if run.data.tags.get("whichlora.kind") == "run"]
    result = tidy(
        pd.DataFrame([*rows, *files.rows]),
        experiments=(*experiments, *files.names),
        others={k: kinds[k] for k in sorted(kinds)},
    )
    return replace(
        result,
        design=result.design.with_files(files.digests, files.names, files.duplicates, files.notes),
        probes=tuple(run for run in runs if run.data.tags.get("whichlora.kind") == "probe"),
        comparisons=tuple(run for run in runs if run.data.tags.get("whichlora.kind") == "comparison"),
        answers=files.answers,
    )


def row_of(run: Run, experiments: Mapping[str, str]) -> dict[str, Any]:
    """Return a run as a row for `tidy`; `experiments` are names by id."""
    tags = {tag: run.data.tags.get(f"whichlora.{tag}") for tag in _TAGS}
    retained = _dataset(run, "test/retention/en")
    attributes = {
        "run_id": run.info.run_id,
        "name": run.info.run_name or run.info.run_id,
        "status": run.info.status,
        "experiment": experiments[run.info.experiment_id],
        "started": run.info.start_time or 0,
        "ended": run.info.end_time or 0,
        "artifact_uri": run.info.artifact_uri,
        "retained": retained[0],
        "retained_source": retained[1],
    }
    params: dict[str, Any] = dict(run.data.params)
    for key in NUMBERS:
        params[key] = _number(params.get(key))
    digest, malformed = digest_of_english(params.pop("test_digests", "{}"))
    metrics = {
        name: value if math.isfinite(value) else math.nan
        for name, value in run.data.metrics.items()
        if not name.startswith("system/")  # the last points of curves
    }
    # A param and a metric may share a name in runs of other programs; metrics of this project have a slash in theirs.
    slashed = {name: value for name, value in metrics.items() if "/" in name}
    row = {**metrics, **params, **slashed, **tags, **attributes, "test_en_digest": digest}
    checked = {**row, "bad_digests": malformed}
    return {**row, "defects": "; ".join(defects(checked, required_columns(row), run.data.metrics))}


def _dataset(run: Run, context: str) -> tuple[str, str]:
    """Return the name of the dataset that a run has logged for a context, and its languages; "" if there is none."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    tag = ("mlflow.data.context", context)
    for given in inputs:
        if tag in {(t.key, t.value) for t in given.tags}:
            return str(given.dataset.name), _languages(given.dataset.profile)
    return "", ""


def _languages(profile: str | None) -> str:
    """Return the languages in the profile of a dataset, separated by commas; "" if it does not name them."""
    try:
        return ",".join(json.loads(profile or "{}")["languages"])
    except (ValueError, KeyError, TypeError):
        return ""


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
