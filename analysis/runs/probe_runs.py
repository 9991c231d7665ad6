"""What probes of every kind have in common: what became of them, and the table by layer that each has logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException

from analysis.runs.artifacts import THREADS, local_path
from analysis.runs.design import Issue
from analysis.stats.distributions import half_width

if TYPE_CHECKING:
    from mlflow.entities import Run

LAYER_COLUMNS = ("layer", "measure", "value", "low", "high", "n")
"""The columns of `layers.parquet`."""
EMBEDDING = -1
"""The layer that stands for what enters the first block."""
BASE = "base model"
REPRESENTATION_KINDS = ("alignment", "weights")
"""The kinds of probes that are not set beside F1."""


class ProbesByStatus(NamedTuple):
    """Probes by what became of them."""

    failed: tuple[Issue, ...]
    unfinished: tuple[Issue, ...]
    finished: list[Run]


def group_by_status(probes: Sequence[Run]) -> ProbesByStatus:
    """Part probes into failed, unfinished and finished."""
    failed, unfinished, finished = [], [], []
    done = {run.data.tags.get("whichlora.fingerprint", "") for run in probes if run.info.status == "FINISHED"} - {""}
    for run in probes:
        since = "; done since by another" if run.data.tags.get("whichlora.fingerprint") in done else ""
        if run.info.status in ("FAILED", "KILLED"):
            failed.append(probe_issue(run, run.data.tags.get("whichlora.error", "without a reason") + since))
        elif run.info.status != "FINISHED":
            unfinished.append(probe_issue(run, run.info.status.lower() + since))
        else:
            finished.append(run)
    return ProbesByStatus(tuple(failed), tuple(unfinished), finished)


def read_layers(probes: Sequence[Run], cache: Path | None) -> dict[str, pa.Table]:
    """Return `layers.parquet` of each probe that has one, by its id."""

    def read(run: Run) -> pa.Table | None:
        try:
            path = local_path(run.info.artifact_uri, run.info.run_id, "layers.parquet", cache)
            return pq.read_table(path, columns=list(LAYER_COLUMNS))
        except (MlflowException, OSError, pa.ArrowException):
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(read, probes)
    return {run.info.run_id: table for run, table in zip(probes, found, strict=True) if table is not None}


def mean_by_layer(curves: pd.DataFrame, bounds: tuple[float, float] = (-math.inf, math.inf)) -> pd.DataFrame:
    """Return by layer the mean of `value` over probes, how many there are (n), and the 95 % interval (low, high).

    With several probes it is the t interval over them, within `bounds`; with one it is the probe's own, over its items.
    """
    grouped = curves.groupby("layer")
    found = pd.DataFrame(grouped["value"].agg(mean="mean", sd="std", n="count"))
    half = half_width(found["sd"], found["n"])
    own = grouped[["low", "high"]].first()
    several = found["n"] > 1
    return found.drop(columns="sd").assign(
        low=(found["mean"] - half).clip(lower=bounds[0]).where(several, own["low"]),
        high=(found["mean"] + half).clip(upper=bounds[1]).where(several, own["high"]),
    )


def band_caption(counts: pd.Series[int], *, base: bool) -> str:
    """Say what the bands of a figure are; `counts` are the probes behind each of its lines but the base model's."""
    alone = " and ".join(["lines of one run"] * bool((counts == 1).any()) + ["the base model"] * base)
    over_items = f"those of {alone} bootstrap intervals over items. " if alone else ""
    if (counts > 1).any():
        return "Bands are 95 % intervals over seeds" + (f", {over_items}" if alone else ". ")
    return "Bands are each line's own 95 % bootstrap interval over items: one run is behind it. " if alone else ""


def probe_issue(run: Run, text: str) -> Issue:
    """Return a probe that does not count, and why."""
    return Issue(run.info.run_id, run.info.run_name or run.info.run_id, text)
