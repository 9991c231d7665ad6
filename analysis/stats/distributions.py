"""Quantiles and tails of the studentized range (cached, because slow) and of the noncentral t (with safe far tails),
the power of a t test, and the half-width of a t interval.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats


@lru_cache(maxsize=256)
def range_quantile(q: float, groups: int, df: float) -> float:
    """Return a quantile of the studentized range; cached, because each takes a third of a second."""
    return float(stats.studentized_range.ppf(q, groups, df))


@lru_cache(maxsize=4096)
def range_tail(q: float, groups: int, df: float) -> float:
    """Return the upper tail of the studentized range; cached, because each takes some 10 ms and claims repeat them."""
    return float(stats.studentized_range.sf(q, groups, df))


def noncentral_t(t: float, df: float, nc: float) -> float:
    """Return the CDF of the noncentral t; far in the tails, where scipy returns NaN, return 0 or 1."""
    p = float(stats.nct.cdf(t, df, nc))
    return p if np.isfinite(p) else float(t > nc)


def t_power(nc: float, df: float, critical: float) -> float:
    """Return the probability that a noncentral t lies outside +- critical."""
    return 1 - noncentral_t(critical, df, nc) + noncentral_t(-critical, df, nc)


def noncentrality(df: float, critical: float, wanted: float) -> float:
    """Return the noncentrality at which a t test with this critical value has the wanted power."""
    high = critical
    while t_power(high, df, critical) < wanted:
        high *= 1.5
    return float(optimize.brentq(lambda nc: t_power(nc, df, critical) - wanted, 0, high, xtol=1e-10))


def half_width(sd: ArrayLike, n: ArrayLike, alpha: float = 0.05) -> NDArray[np.float64]:
    """Return the half-width of the t interval of a mean of n values with the given standard deviation.

    It is NaN for one value, and 0 if the values do not vary (scipy's interval is NaN then).
    """
    n = np.asarray(n, dtype=float)
    return np.asarray(stats.t.ppf(1 - alpha / 2, np.where(n > 1, n - 1, np.nan)) * np.asarray(sd) / np.sqrt(n))
