"""Handles what probes of all kinds share: their status, and the table by layer that each has logged."""

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
from whichlora.data.targets import POOLED

if TYPE_CHECKING:
    from mlflow.entities import Run

LAYER_COLUMNS = ("layer", "measure", "value", "low", "high", "n")
"""The columns of `layers.parquet`."""
_TYPES = {"layer": pa.int64(), "measure": pa.string(), "n": pa.int64()}
EMBEDDING = -1
"""The layer index of the input to the first block."""
BASE = "base model"
REPRESENTATION_KINDS = ("alignment", "weights")
"""The kinds of probes that are reported without reference to F1."""


class ProbesByStatus(NamedTuple):
    """Probes grouped by their run status."""

    failed: tuple[Issue, ...]
    unfinished: tuple[Issue, ...]
    finished: list[Run]


def group_by_status(probes: Sequence[Run]) -> ProbesByStatus:
    """Group probes into failed, unfinished and finished."""
    failed, unfinished, finished = [], [], []
    done = {run.data.tags.get("whichlora.fingerprint", "") for run in probes if run.info.status == "FINISHED"} - {""}
    for run in probes:
        suffix = "; done since by another" if run.data.tags.get("whichlora.fingerprint") in done else ""
        if run.info.status in ("FAILED", "KILLED"):
            failed.append(probe_issue(run, run.data.tags.get("whichlora.error", "without a reason") + suffix))
        elif run.info.status != "FINISHED":
            unfinished.append(probe_issue(run, run.info.status.lower() + suffix))
        else:
            finished.append(run)
    return ProbesByStatus(tuple(failed), tuple(unfinished), finished)


def read_layers(probes: Sequence[Run], cache: Path | None) -> dict[str, pa.Table]:
    """Return `layers.parquet` by probe id, for the probes that have a readable one."""

    def read(run: Run) -> pa.Table | None:
        try:
            path = local_path(run.info.artifact_uri, run.info.run_id, "layers.parquet", cache)
            table = pq.read_table(path, columns=list(LAYER_COLUMNS)).select(list(LAYER_COLUMNS))
            return pa.table({name: table[name].cast(_TYPES.get(name, pa.float64())) for name in LAYER_COLUMNS})
        except (MlflowException, OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        tables = pool.map(read, probes)
    return {run.info.run_id: table for run, table in zip(probes, tables, strict=True) if table is not None}


def mean_by_layer(curves: pd.DataFrame, bounds: tuple[float, float] = (-math.inf, math.inf)) -> pd.DataFrame:
    """Return by layer the mean of `value` over probes, their number (n), and the 95 % interval (low, high).

    With several probes it is the t interval over probes, clipped to `bounds`; with one it is the probe's interval over
    items.
    """
    grouped = curves.groupby("layer")
    means = pd.DataFrame(grouped["value"].agg(mean="mean", sd="std", n="count"))
    half = half_width(means["sd"], means["n"])
    item_interval = grouped[["low", "high"]].first()
    several = means["n"] > 1
    return means.drop(columns="sd").assign(
        low=(means["mean"] - half).clip(lower=bounds[0]).where(several, item_interval["low"]),
        high=(means["mean"] + half).clip(upper=bounds[1]).where(several, item_interval["high"]),
    )


def band_caption(counts: pd.Series[int], *, base: bool) -> str:
    """Return the caption sentence that explains the bands of a figure.

    Args:
        counts: number of probes behind each line except the base model's.
        base: whether the base model has a line.
    """
    single = " and ".join(["lines of one run"] * bool((counts == 1).any()) + ["the base model"] * base)
    over_items = f"those of {single} over items. " if single else ""
    if (counts > 1).any():
        return "Bands are 95 % intervals over seeds" + (f", {over_items}" if single else ". ")
    return "Bands are 95 % intervals over items; each line is one run. " if single else ""


def probe_issue(run: Run, text: str) -> Issue:
    """Return the issue that lists a probe as excluded, with the reason."""
    return Issue(run.info.run_id, run.info.run_name or run.info.run_id, text)


def reads(languages: str, of_run: str) -> bool:
    """Return whether a probe's languages, joined by "+", are those that the option `language` of a run names."""
    if of_run == POOLED:
        return "+" in languages
    return set(languages.split("+")) == {part.partition(":")[0] for part in of_run.split(",")}
