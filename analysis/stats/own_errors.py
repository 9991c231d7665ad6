"""The primary analysis without its assumption that the differences of all pairs of methods have one error."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.blocked import fit_means
from analysis.stats.cells import cells, pairs
from analysis.stats.contrasts import paired_t
from analysis.stats.multiplicity import holm_records

SPHERICITY, F_TEST, PAIR_TEST = "equal errors, John", "F, Greenhouse-Geisser", "paired t, the pair's own error"
_DRAWS, _AT_ONCE = 10_000, 500


def own_errors(table: pd.DataFrame, *, outcome: str, metric: str = "f1", alpha: float = 0.05) -> list[Record]:
    """Compare the methods on the cell means of `blocked`: whether the pairs' errors are equal; all methods with the
    degrees of freedom that unequal ones leave, over the blocks that all have; each pair on its own error, over the
    blocks that both have.
    """
    table_cells = cells(table, outcome, metric)
    names, means = table_cells.methods, table_cells.means
    whole = means.dropna()
    note = "effect is epsilon: 1 where they are equal in truth, 1 / (methods - 1) at least, and less of few blocks"
    found = [attempt(lambda: sphericity(whole), outcome, "own errors", SPHERICITY, names, note)]
    note = "effect is epsilon, which scales both degrees of freedom; with equal errors the primary F is the better one"
    found.append(attempt(lambda: greenhouse_geisser(whole), outcome, "own errors", F_TEST, names, note))
    note = f"differences between blocks ({table_cells.unit}); the interval is for this pair alone, p adjusted by Holm"
    each = []
    for pair in pairs(table_cells.methods):
        first, second = (means[list(pair)].dropna()[name] for name in pair)
        each.append(attempt(partial(paired_t, first, second, alpha), outcome, "own errors", PAIR_TEST, pair, note))
    return [*found, *holm_records(each)]


def sphericity(means: pd.DataFrame) -> Result:
    """Return John's (1971) test that the pairs of methods (columns) all have one error over blocks (rows).

    p is the share of draws with equal errors whose epsilon is as small (10,000 draws with a fixed seed), so that few
    blocks do no harm.

    Raises:
        NotTestable: as `corrected`.
    """
    share = greenhouse_geisser(means).effect or 0.0
    draws = _epsilons(*means.shape)
    return Result(p=float((1 + np.sum(draws <= share)) / (1 + len(draws))), effect=share, n=means.size)


def greenhouse_geisser(means: pd.DataFrame) -> Result:
    """Return F of the methods (columns) within blocks (rows) with the degrees of freedom of Greenhouse and Geisser.

    Raises:
        NotTestable: fewer than three methods or two blocks, or nothing varies.
    """
    blocks, methods = means.shape
    if methods < 3:
        raise NotTestable("fewer than three methods: one pair has one error" if methods else "there are no runs")
    if blocks < 2:
        raise NotTestable(f"the methods have {blocks or 'no'} block{'s' * (blocks == 0)} in common, two are needed")
    test = fit_means(means).test
    share = float(epsilon(means))
    df = tuple(share * value for value in test.df or ())
    return Result(statistic=test.statistic, df=df, p=float(stats.f.sf(test.statistic, *df)), effect=share, n=test.n)


def epsilon(values: ArrayLike) -> NDArray[np.float64]:
    """Return Greenhouse and Geisser's (1959) estimate of Box's epsilon, from (..., blocks, treatments)."""
    x = np.asarray(values, dtype=float)
    x = x - x.mean(axis=-2, keepdims=True)
    x = x - x.mean(axis=-1, keepdims=True)  # what is left is the interaction of treatment and block
    products = x.swapaxes(-1, -2) @ x
    share = np.trace(products, axis1=-2, axis2=-1) ** 2 / np.sum(products**2, axis=(-2, -1))
    return np.asarray(share / (x.shape[-1] - 1))


@lru_cache(maxsize=64)
def _epsilons(blocks: int, methods: int) -> NDArray[np.float64]:
    """Return epsilons of so many draws in which all pairs have the same error; a large design's not all at once."""
    rng = np.random.default_rng(1971)
    parts = [epsilon(rng.normal(size=(_AT_ONCE, blocks, methods))) for _ in range(_DRAWS // _AT_ONCE)]
    return np.concatenate(parts)
