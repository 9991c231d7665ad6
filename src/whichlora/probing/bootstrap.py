"""Bootstrap intervals of means over items, in memory that does not grow with the number of items.

In the Poisson bootstrap (Hanley and MacGibbon 2006, Comput. Methods Programs Biomed. 83:57-62) each item enters each
resample a Poisson(1) number of times, so a resample is a running sum, and items can come one after the other.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
"""Of the percentile intervals."""
_PORTION = 256
"""Items whose weights in all resamples are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Means over items, their interval and the number of items that had a value; each array is (columns,)."""

    mean: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]
    n: np.ndarray[Any, Any]


class Means:
    """Collects the values of items, and gives their means with intervals.

    The result depends on the order of the items and the seed, not on how many are added at a time.
    """

    def __init__(self, columns: int, *, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._sum, self._count = np.zeros(columns), np.zeros(columns)
        self._sums, self._counts = np.zeros((RESAMPLES, columns)), np.zeros((RESAMPLES, columns))

    def add(self, values: np.ndarray[Any, Any]) -> None:
        """Add (items, columns); an item without a value for a column has NaN there."""
        for start in range(0, len(values), _PORTION):
            self._add(values[start : start + _PORTION])

    def _add(self, values: np.ndarray[Any, Any]) -> None:
        there = np.isfinite(values)
        numbers = np.where(there, values, 0.0).astype(float)
        weights = self._random.poisson(1.0, size=(len(values), RESAMPLES)).astype(float).T
        self._sum += numbers.sum(0)
        self._count += there.sum(0)
        self._sums += weights @ numbers
        self._counts += weights @ there.astype(float)

    def result(self) -> Intervals:
        """Return means and intervals; NaN where no item has a value."""
        tail = 100 * (1 - LEVEL) / 2
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN
            low, high = np.nanpercentile(self._sums / self._counts, [tail, 100 - tail], axis=0)
            mean = self._sum / self._count
        return Intervals(mean=mean, low=low, high=high, n=self._count.astype(int))
