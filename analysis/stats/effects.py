"""Computes effect sizes with confidence intervals: eta squared, omega squared and Hedges' g."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special
from statsmodels.stats.oneway import confint_noncentrality

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.blocked import fit_cells
from analysis.stats.cells import cells, pairs, samples
from analysis.stats.distributions import noncentral_t
from analysis.stats.replication import anova


def effects(table: pd.DataFrame, *, outcome: str, alpha: float = 0.05) -> list[Record]:
    """Return the share of variance explained by the methods, over all runs and within blocks, and g of each pair."""
    table_cells, groups = cells(table, outcome), samples(table, outcome)
    names = table_cells.methods
    layouts = [
        ("", "of the variance over all runs, including that of language and ratio", lambda: anova(groups)),
        ("partial ", "of the variance within blocks", lambda: fit_cells(table_cells).test),
    ]
    records = []
    for kind, note, test in layouts:
        for size, estimate in (("eta squared", eta_squared), ("omega squared", omega_squared)):
            records.append(
                attempt(partial(_estimate, test, estimate, alpha), outcome, "effects", kind + size, names, note)
            )
    for a, b in pairs(names):
        both = table_cells.means[[a, b]].dropna()
        note = f"mean difference over the SD of differences between blocks ({table_cells.unit}), small-sample corrected"
        records.append(
            attempt(partial(hedges_g_paired, both[a], both[b], alpha), outcome, "effects", "Hedges g", (a, b), note)
        )
    return records


def eta_squared(f: float, df: tuple[float, float], n: int, alpha: float = 0.05) -> Result:
    """Return eta squared, SS_effect / (SS_effect + SS_error), with its interval.

    The interval is that of nc / (nc + n) from inverting the noncentral F (Steiger 2004).
    """
    ratio = f * df[0] / df[1]
    low, high = _noncentrality(f, df, alpha)
    return Result(effect=ratio / (1 + ratio), interval=(low / (low + n), high / (high + n)), n=n)


def omega_squared(f: float, df: tuple[float, float], n: int, alpha: float = 0.05) -> Result:
    """Return omega squared, a less biased estimate of the same share (truncated at zero), with the interval of
    `eta_squared`.
    """
    estimate = max(0.0, df[0] * (f - 1) / (df[0] * f + df[1] + 1))
    return Result(effect=estimate, interval=eta_squared(f, df, n, alpha).interval, n=n)


def hedges_g_paired(first: ArrayLike, second: ArrayLike, alpha: float = 0.05) -> Result:
    """Return Hedges' g of paired values: mean difference over its standard deviation, corrected for small samples.

    The interval is from inverting the noncentral t (Hedges 1981; Cumming 2012).

    Raises:
        NotTestable: fewer than three pairs, or the differences do not vary.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n, df = len(differences), len(differences) - 1
    if n < 2:
        raise NotTestable("the two methods have fewer than two blocks in common")
    sd = float(differences.std(ddof=1))
    if sd <= 1e-10:
        raise NotTestable("the values do not vary")
    if df < 2:
        raise NotTestable("one degree of freedom is too few")
    d = float(differences.mean()) / sd
    t = d * np.sqrt(n)

    def centre(quantile: float) -> float:
        """Return the noncentrality at which the observed t is this quantile."""
        span = 6 + abs(t)
        return float(optimize.brentq(lambda nc: noncentral_t(t, df, nc) - quantile, t - span, t + span))

    exact = float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) * np.sqrt(2 / df))
    low, high = centre(1 - alpha / 2) / np.sqrt(n), centre(alpha / 2) / np.sqrt(n)
    return Result(t, (df,), effect=d * exact, interval=(low * exact, high * exact), n=n)


def _estimate(test: Callable[[], Result], estimate: Callable[..., Result], alpha: float) -> Result:
    f = test()
    return estimate(f.statistic, f.df, f.n, alpha)


def _noncentrality(f: float, df: tuple[float, float], alpha: float) -> tuple[float, float]:
    low, high = confint_noncentrality(f, df, alpha=alpha)
    return max(0.0, float(low)), max(0.0, float(high))
