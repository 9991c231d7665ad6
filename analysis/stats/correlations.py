"""Does a column of the table go with F1, from run to run within a language?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import rows


def correlate(table: pd.DataFrame, *, outcome: str, column: str, alpha: float = 0.05) -> Record:
    """Return Pearson's correlation of a column with F1 over runs, both centred within each language."""

    def make() -> Result:
        frame = rows(table, outcome)
        if column not in frame or frame[column].isna().all():
            raise NotTestable(f"the runs have no {column}")
        frame = frame[frame[column].notna()]
        return partial_pearson(frame[column], frame["value"], list(frame["language"]), alpha)

    return attempt(make, outcome, "correlation", "Pearson within languages", (column, "f1"), "n runs")


def partial_pearson(x: ArrayLike, y: ArrayLike, groups: list[str], alpha: float = 0.05) -> Result:
    """Return Pearson's r of what is left of x and y when each group's mean is taken out; a degree of freedom is lost
    for each group. The interval is Fisher's.

    Raises:
        NotTestable: too few values, or one that does not vary within groups.
    """
    frame = pd.DataFrame({"x": np.asarray(x, dtype=float), "y": np.asarray(y, dtype=float), "g": groups})
    left = frame[["x", "y"]] - frame.groupby("g")[["x", "y"]].transform("mean")
    df = len(frame) - frame["g"].nunique() - 1
    if df < 2:
        raise NotTestable(f"{len(frame)} runs in {frame['g'].nunique()} languages are too few for a correlation")
    square = float((left["x"] ** 2).sum() * (left["y"] ** 2).sum())
    if square <= 1e-24:
        raise NotTestable("one of the two does not vary within languages")
    r = float(np.clip((left["x"] * left["y"]).sum() / np.sqrt(square), -1 + 1e-15, 1 - 1e-15))
    t = r * np.sqrt(df / (1 - r * r))
    half = stats.norm.ppf(1 - alpha / 2) / np.sqrt(df - 1)
    interval = (float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))
    return Result(float(t), (df,), float(2 * stats.t.sf(abs(t), df)), r, interval, len(frame))
