"""The omnibus test without its sphericity assumption, that the differences of all pairs have equal variance."""

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

SPHERICITY, F_TEST, PAIR_TEST = "sphericity, John", "F, Greenhouse-Geisser", "paired t, the pair's own error"
_DRAWS, _CHUNK = 10_000, 500


def own_errors(table: pd.DataFrame, *, outcome: str, metric: str = "f1", alpha: float = 0.05) -> list[Record]:
    """Compare the methods on the cell means of `blocked` without assuming sphericity.

    Returns John's test of sphericity; F with Greenhouse-Geisser degrees of freedom, over the blocks that all methods
    have; and for each pair a paired t test with its own error, over the blocks that both methods have.
    """
    table_cells = cells(table, outcome, metric)
    names, means = table_cells.methods, table_cells.means
    complete = means.dropna()
    note = "effect is epsilon: 1 under sphericity, at least 1 / (methods - 1); biased downwards with few blocks"
    records = [attempt(lambda: sphericity(complete), outcome, "own errors", SPHERICITY, names, note)]
    note = "effect is epsilon, which scales both degrees of freedom; under sphericity the uncorrected F has more power"
    records.append(attempt(lambda: greenhouse_geisser(complete), outcome, "own errors", F_TEST, names, note))
    note = f"differences between blocks ({table_cells.unit}); CI of this pair alone, p adjusted by Holm"
    by_pair = []
    for pair in pairs(table_cells.methods):
        first, second = (means[list(pair)].dropna()[name] for name in pair)
        by_pair.append(attempt(partial(paired_t, first, second, alpha), outcome, "own errors", PAIR_TEST, pair, note))
    return [*records, *holm_records(by_pair)]


def sphericity(means: pd.DataFrame) -> Result:
    """Test sphericity by John (1971): differences of all pairs of methods (columns) have equal variance over blocks.

    p is the share of 10,000 simulated spherical tables (fixed seed) whose epsilon is at most the observed one, so the
    test is valid for few blocks.

    Raises:
        NotTestable: as `greenhouse_geisser`.
    """
    observed = greenhouse_geisser(means).effect or 0.0
    simulated = _epsilons(*means.shape)
    return Result(p=float((1 + np.sum(simulated <= observed)) / (1 + len(simulated))), effect=observed, n=means.size)


def greenhouse_geisser(means: pd.DataFrame) -> Result:
    """Test methods (columns) within blocks (rows) by F with the degrees of freedom of Greenhouse and Geisser.

    Raises:
        NotTestable: fewer than three methods or two blocks, or nothing varies.
    """
    blocks, methods = means.shape
    if methods < 3:
        raise NotTestable("fewer than three methods: one pair has one error" if methods else "there are no runs")
    if blocks < 2:
        raise NotTestable(f"the methods have {blocks or 'no'} block{'s' * (blocks == 0)} in common, two are needed")
    test = fit_means(means).test
    scale = float(epsilon(means))
    df = tuple(scale * value for value in test.df or ())
    return Result(statistic=test.statistic, df=df, p=float(stats.f.sf(test.statistic, *df)), effect=scale, n=test.n)


def epsilon(values: ArrayLike) -> NDArray[np.float64]:
    """Return Greenhouse and Geisser's (1959) estimate of Box's epsilon, from (..., blocks, treatments)."""
    x = np.asarray(values, dtype=float)
    x = x - x.mean(axis=-2, keepdims=True)
    x = x - x.mean(axis=-1, keepdims=True)  # now the treatment x block interaction
    products = x.swapaxes(-1, -2) @ x
    ratio = np.trace(products, axis1=-2, axis2=-1) ** 2 / np.sum(products**2, axis=(-2, -1))
    return np.asarray(ratio / (x.shape[-1] - 1))


@lru_cache(maxsize=64)
def _epsilons(blocks: int, methods: int) -> NDArray[np.float64]:
    """Return the epsilons of `_DRAWS` simulated spherical tables, drawn in chunks to limit memory."""
    rng = np.random.default_rng(1971)
    parts = [epsilon(rng.normal(size=(_CHUNK, blocks, methods))) for _ in range(_DRAWS // _CHUNK)]
    return np.concatenate(parts)
