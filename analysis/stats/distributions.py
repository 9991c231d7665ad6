"""Quantiles and tails: of the studentized range, slow to invert; of the noncentral t, whose far tails lose their
digits; and the reach of a t interval.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@lru_cache(maxsize=256)
def range_quantile(q: float, groups: int, df: float) -> float:
    """Return a quantile of the studentized range (a third of a second each, and often asked for again)."""
    return float(stats.studentized_range.ppf(q, groups, df))


@lru_cache(maxsize=4096)
def range_tail(q: float, groups: int, df: float) -> float:
    """Return the probability of a larger studentized range (some 10 ms each; claims ask for the same ones again)."""
    return float(stats.studentized_range.sf(q, groups, df))


def noncentral_t(t: float, df: float, nc: float) -> float:
    """Return the distribution function of the noncentral t; scipy gives NaN far from its middle, where it is 0 or 1."""
    found = float(stats.nct.cdf(t, df, nc))
    return found if np.isfinite(found) else float(t > nc)


def half_width(sd: ArrayLike, n: ArrayLike, alpha: float = 0.05) -> NDArray[np.float64]:
    """Return how far the t interval of a mean of n values with this standard deviation reaches on each side.

    It is NaN for one value, and 0 where they do not vary (scipy's own interval is NaN there).
    """
    n = np.asarray(n, dtype=float)
    return np.asarray(stats.t.ppf(1 - alpha / 2, np.where(n > 1, n - 1, np.nan)) * np.asarray(sd) / np.sqrt(n))
