"""Finds whether the runs had the device to themselves, without which their times and device figures say nothing."""

from __future__ import annotations

import pandas as pd

OWN = (
    "gpu/torch_peak_mb",
    *(f"inference/{form}{size}" for form in ("", "merged/") for size in ("weights_mb", "memory_max_mb")),
)
"""Figures of a run's own process, whatever else the device does."""
_SHARED = ("train/seconds", "train/examples_per_second", "train/price", "gpu/", "host/", "inference/")


def measures_device(metric: str) -> bool:
    """Return whether a metric depends on what else the device does at the time."""
    return metric.startswith(_SHARED) and metric not in OWN


def overlapping(table: pd.DataFrame, metric: str) -> int | None:
    """Return the number of runs with a metric whose time from start to end overlaps with that of another run here.

    It is None if times are unknown, as those of results from files are.
    """
    if metric not in table or not {"run_id", "started", "ended"} <= set(table) or table[metric].isna().all():
        return None
    runs = table[table[metric].notna()].drop_duplicates("run_id").sort_values("started")
    if runs["started"].isna().any():
        return None
    before = runs["ended"].cummax().shift() > runs["started"]
    after = runs["started"].shift(-1) < runs["ended"].cummax()
    return int((before | after).sum())


def places(table: pd.DataFrame, metric: str) -> int:
    """Return on how many machines, or in how many work folders, the runs with a metric were done; 1 if unknown."""
    if metric not in table or "place" not in table:
        return 1
    return max(1, int(table.loc[table[metric].notna(), "place"].nunique()))


def not_comparable(table: pd.DataFrame, metric: str) -> str:
    """Return why the runs cannot be compared by a metric of the device; "" if they can."""
    if not measures_device(metric) or metric not in table or table[metric].isna().all():
        return ""
    overlaps = overlapping(table, metric)
    if overlaps is None:
        return "it is not known whether the runs had the device to themselves"
    if overlaps:
        return f"{overlaps} run{'s' if overlaps > 1 else ''} overlapped in time with other runs"
    if (count := places(table, metric)) > 1:
        return f"the runs were done in {count} places (machines or work folders)"
    return ""
