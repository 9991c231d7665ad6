"""Friedman's test over blocks, Nemenyi's test of all pairs, and the critical difference of mean ranks.

Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import scikit_posthocs
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import Cells, cells, pairs
from analysis.stats.distributions import range_quantile

CRITICAL, RANK = "critical difference", "mean rank"


def ranks(table: pd.DataFrame, *, outcome: str, metric: str = "f1", alpha: float = 0.05) -> list[Record]:
    """Rank the methods in each block (1 is best) and compare mean ranks; incomplete blocks are excluded.

    Returns the contents of a critical-difference diagram: Friedman's chi2, the F of Iman and Davenport, the critical
    difference, the mean rank of each method, and Nemenyi's p for each pair.
    """
    table_cells = cells(table, outcome, metric)
    complete = table_cells.means.dropna()
    names = table_cells.methods
    note = _note(table_cells, len(complete))

    def scores() -> NDArray[np.float64]:
        if len(names) < 3:
            raise NotTestable("Friedman's test needs three methods")
        if len(complete) < 2:
            raise NotTestable(f"it needs two blocks that hold every method, there is {len(complete) or 'none'}")
        return np.asarray(complete, dtype=float)

    def test(position: int) -> Result:
        return friedman(mean_ranks(scores()), len(complete), ties=tie_correction(scores()))[position]

    records = [
        attempt(lambda: test(0), outcome, "friedman", "Friedman chi2", names, note),
        attempt(lambda: test(1), outcome, "friedman", "Iman-Davenport F", names, note),
    ]
    if records[0].statistic is None:
        return records
    n = len(complete)
    width = critical_difference(len(names), n, alpha)
    text = f"of mean ranks, Nemenyi, alpha {alpha:g}"
    records.append(
        Record(outcome=outcome, analysis="friedman", test=CRITICAL, groups=names, effect=width, n=n, note=text)
    )
    by_name = dict(zip(names, mean_ranks(scores()), strict=True))
    records += [
        Record(outcome=outcome, analysis="friedman", test=RANK, groups=(name,), effect=rank, n=n)
        for name, rank in by_name.items()
    ]
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(complete.to_numpy()).to_numpy()
    for a, b in pairs(names):
        p = float(nemenyi[names.index(a), names.index(b)])
        records.append(
            Record(
                outcome=outcome,
                analysis="friedman",
                test="Nemenyi",
                groups=(a, b),
                p_adjusted=p,
                correction="nemenyi",
                effect=by_name[a] - by_name[b],
                n=n,
                note="difference of mean ranks; a lower rank is better",
            )
        )
    return records


def mean_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the mean rank of each column over the rows; the highest score has rank 1, ties get their mean rank."""
    return np.asarray(stats.rankdata(-np.asarray(scores, dtype=float), axis=1).mean(axis=0))


def tie_correction(scores: ArrayLike) -> float:
    """Return the divisor that corrects Friedman's chi2 for ties: 1 without ties, 0 if all scores are tied."""
    table = np.asarray(scores, dtype=float)
    n, k = table.shape
    ties = sum(float(np.sum(c**3 - c)) for row in table for c in [np.unique(row, return_counts=True)[1]])
    return float(1 - ties / (n * k * (k * k - 1)))


def friedman(means: ArrayLike, blocks: int, *, ties: float = 1.0) -> tuple[Result, Result]:
    """Return Friedman's chi2 and the F of Iman and Davenport from mean ranks.

    `ties` is the result of `tie_correction`; with 1, ties are not corrected, as in Demsar.

    Raises:
        NotTestable: all methods tie in every block.
    """
    r = np.asarray(means, dtype=float)
    k = len(r)
    if ties <= 0:
        raise NotTestable("all methods tie in every block")
    chi2 = 12 * blocks / (k * (k + 1)) * (float(np.sum(r**2)) - k * (k + 1) ** 2 / 4) / ties
    remainder = blocks * (k - 1) - chi2
    df = (k - 1, (k - 1) * (blocks - 1))
    f = (blocks - 1) * chi2 / remainder if remainder > 1e-9 else float("inf")
    return (
        Result(chi2, (k - 1,), float(stats.chi2.sf(chi2, k - 1)), n=blocks),
        Result(f, df, float(stats.f.sf(f, *df)), n=blocks),
    )


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Return the smallest difference of two mean ranks that is significant in Nemenyi's test."""
    return range_quantile(1 - alpha, methods, math.inf) * math.sqrt(methods * (methods + 1) / (12 * blocks))


def _note(table_cells: Cells, complete: int) -> str:
    missing = len(table_cells.means) - complete
    return f"blocks: {table_cells.unit}" + (f"; {missing} incomplete blocks are left out" if missing else "")
