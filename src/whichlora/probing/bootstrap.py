"""Confidence intervals of means over items, by bootstrap or Wilson's, in memory independent of the number of items.

In the Poisson bootstrap (Hanley and MacGibbon 2006, Comput. Methods Programs Biomed. 83:57-62) each item enters each
resample a Poisson(1) number of times. A resample is therefore a running sum, and items can be streamed. The bootstrap
interval of a proportion with few hits is too narrow, and that of none has no width, so proportions have Wilson's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whichlora.evaluation.intervals import wilson

RESAMPLES = 1000
LEVEL = 0.95
"""Confidence level of the percentile intervals."""
_CHUNK = 256
"""Number of items whose resampling weights are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Means over items, their intervals and the number of items that had a value; each array is (columns,)."""

    mean: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]
    n: np.ndarray[Any, Any]


class PoissonBootstrap:
    """Accumulates the values of items and returns their means with intervals.

    The result depends on the order of the items and on the seed, but not on how many items each call adds.

    Args:
        columns: number of values of each item.
        seed: random seed of the resamples.
        proportions: columns of hits (1) and misses (0), or of expectations of them, whose intervals are Wilson's.
    """

    def __init__(self, columns: int, *, seed: int, proportions: Sequence[int] = ()) -> None:
        self._random, self._proportions = np.random.default_rng(seed), proportions
        self._sum, self._count = np.zeros(columns), np.zeros(columns)
        self._sums, self._counts = np.zeros((RESAMPLES, columns)), np.zeros((RESAMPLES, columns))

    def add(self, values: np.ndarray[Any, Any]) -> None:
        """Add values of shape (items, columns); NaN marks an item that has no value for a column."""
        for start in range(0, len(values), _CHUNK):
            self._add(values[start : start + _CHUNK])

    def _add(self, values: np.ndarray[Any, Any]) -> None:
        finite = np.isfinite(values)
        filled = np.where(finite, values, 0.0).astype(float)
        weights = self._random.poisson(1.0, size=(len(values), RESAMPLES)).astype(float).T
        self._sum += filled.sum(0)
        self._count += finite.sum(0)
        self._sums += weights @ filled
        self._counts += weights @ finite.astype(float)

    def result(self) -> Intervals:
        """Return means and intervals; NaN in columns for which no item has a value."""
        tail = 100 * (1 - LEVEL) / 2
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN
            low, high = np.nanpercentile(self._sums / self._counts, [tail, 100 - tail], axis=0)
            mean = self._sum / self._count
        for column in self._proportions:
            if self._count[column]:
                low[column], high[column] = wilson(mean[column], int(self._count[column]))
        return Intervals(mean=mean, low=low, high=high, n=self._count.astype(int))
