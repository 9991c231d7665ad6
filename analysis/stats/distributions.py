"""Distributions that need care: one slow to invert, one whose far tails lose their digits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
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
