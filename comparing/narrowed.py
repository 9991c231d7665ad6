"""Differences over all seeds, those included that were run after every method was decided (`stop=budget`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.stats.sequential.boundaries import FIRST_LOOK, critical_values, spent


class Difference(NamedTuple):
    """How many points a method is behind another, over the seeds that both ran."""

    method: str
    seeds: int
    behind: float
    interval: tuple[float, float]


def differences(scores: pd.DataFrame, leader: str, *, max_seeds: int, confidence: float) -> list[Difference]:
    """Return the differences from a method, with intervals that hold for all pairs of methods and at every look.

    Each pair has a paired t interval with the critical value for repeated looks (see `boundaries`), Bonferroni over all
    pairs, so that it does not matter which methods are looked at, nor when.

    Args:
        scores: one row per seed, one column per method, in points.
    """
    k = scores.shape[1]
    found = []
    for method in scores.columns:
        values = (scores[leader] - scores[method]).dropna().to_numpy(dtype=float)
        n = len(values)
        if method == leader or n < FIRST_LOOK:
            continue
        steps = np.diff(spent(np.arange(1, n + 1), max_seeds)) * (1 - confidence) / (k * (k - 1) / 2)
        half = float(critical_values(steps)[-1]) * float(values.std(ddof=1)) / math.sqrt(n)
        mean = float(values.mean())
        found.append(Difference(str(method), n, mean, (mean - half, mean + half)))
    return found
