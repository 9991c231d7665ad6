"""Compares methods answer by answer on the same test items: McNemar's test and the paired bootstrap.

The tests are conditional on the trained adapters: they tell whether these adapters differ on such items, not whether
other seeds would. An item answered in several cells (languages, ratios, seeds) is one cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import pairs
from analysis.stats.multiplicity import holm_records

DRAWS = 10_000
MCNEMAR, BOOTSTRAP = "McNemar", "paired bootstrap"
_EXACT_BELOW = 25
"""With fewer discordant answers than this, McNemar's test is exact."""


@dataclass(frozen=True)
class Answers:
    """Scores of the same answers by method.

    Attributes:
        methods: the methods, in the order of the columns.
        scores: (answers, methods), one row per item and cell; NaN if a method has no answer.
        clusters: (answers,) the index of each row's item.
    """

    methods: tuple[str, ...]
    scores: NDArray[np.float64]
    clusters: NDArray[np.int64]

    def between(self, first: str, second: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return the scores of two methods on the answers that both have, and their item indices.

        Raises:
            NotTestable: the methods share no item.
        """
        x, y = (self.scores[:, self.methods.index(name)] for name in (first, second))
        both = ~(np.isnan(x) | np.isnan(y))
        if not both.any():
            raise NotTestable("the two methods have no item in common")
        return x[both], y[both], self.clusters[both]


def paired(items: pd.DataFrame, *, outcome: str, alpha: float = 0.05, draws: int = DRAWS) -> list[Record]:
    """Compare each pair of methods on the answers that both gave, with Holm's adjustment over the pairs.

    Returns McNemar's test, if answers are right or wrong, and the mean difference in points with interval and p from a
    bootstrap over items. The draws are seeded, so the same items give the same numbers.
    """
    answers = collect(items, outcome)
    if len(answers.methods) < 2:
        reason = "no test: " + ("one method only has predictions" if answers.methods else "there are no predictions")
        return [
            Record(outcome=outcome, analysis="paired", test=t, groups=answers.methods, note=reason)
            for t in (MCNEMAR, BOOTSTRAP)
        ]
    note = "n test items; conditional on these adapters"
    tests, intervals = [], []
    for a, b in pairs(answers.methods):
        between = partial(answers.between, a, b)
        test = partial(_apply, _mcnemar_of, between)
        tests.append(attempt(test, outcome, "paired", MCNEMAR, (a, b), note))
        draw = partial(_apply, partial(bootstrap, draws=draws, alpha=alpha), between)
        intervals.append(attempt(draw, outcome, "paired", BOOTSTRAP, (a, b), f"points; {note}"))
    return [*holm_records(tests), *holm_records(intervals)]


def collect(items: pd.DataFrame, outcome: str) -> Answers:
    """Pivot the predictions of an outcome to one column per method. An answer given twice in a cell counts once."""
    frame = items[(items["outcome"] == outcome) & items["correct"].notna()] if len(items) else items
    if not len(frame):
        return Answers((), np.empty((0, 0)), np.empty(0, dtype=np.int64))
    cell = np.zeros(len(frame), dtype=np.int64)
    for column in ("setting", "language", "tl_ratio", "seed", "id"):
        if column in frame:
            codes, names = pd.factorize(frame[column], sort=True)
            cell = cell * (len(names) + 1) + codes + 1
    cells, row_of = np.unique(cell, return_inverse=True)
    method_codes, methods = pd.factorize(frame["method"].astype(str), sort=True)
    scores = np.full((len(cells), len(methods)), np.nan)
    scores[row_of, method_codes] = frame["correct"].to_numpy(dtype=float)
    item = np.zeros(len(cells), dtype=np.int64)
    item[row_of] = pd.factorize(frame["id"], sort=True)[0]
    return Answers(tuple(map(str, methods)), scores, item)


def mcnemar(table: ArrayLike, *, exact: bool = False, correction: bool = True) -> Result:
    """Test a 2 x 2 table of counts by McNemar.

    Rows are the first method right and wrong (or wrong and right), columns the second in the same order.

    Raises:
        NotTestable: the two methods never disagree.
    """
    counts = np.asarray(table)
    if counts[0, 1] + counts[1, 0] == 0:
        raise NotTestable("the two methods are right and wrong on the same items")
    result = _mcnemar(counts, exact=exact, correction=correction)
    return Result(float(result.statistic), None if exact else (1,), float(result.pvalue), n=int(counts.sum()))


def clustered_mcnemar(differences: ArrayLike, clusters: ArrayLike) -> Result:
    """Test items that were answered more than once by McNemar's test for clustered data (Durkalski et al. 2003).

    The statistic is the squared sum of the differences, divided by the sum over items of each item's squared sum. With
    one answer per item it is McNemar's chi2 without correction.

    Raises:
        NotTestable: the differences of each item sum to zero.
    """
    sums = np.bincount(np.unique(np.asarray(clusters), return_inverse=True)[1], np.asarray(differences, dtype=float))
    square = float(np.sum(sums**2))
    if square == 0:
        raise NotTestable("the two methods are right and wrong on the same items")
    chi2 = float(sums.sum()) ** 2 / square
    return Result(chi2, (1,), float(stats.chi2.sf(chi2, 1)), n=len(sums))


def bootstrap(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike, *, draws: int = DRAWS, alpha: float = 0.05, seed: int = 0
) -> Result:
    """Return the mean difference in points with percentile interval and p from a bootstrap over items.

    Items are drawn with all their answers. p is twice the share of draws on the other side of zero (Koehn 2004).

    Raises:
        NotTestable: only one item, or no difference on any item.
    """
    d = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums, counts = np.bincount(index, d), np.bincount(index)
    if len(sums) < 2:
        raise NotTestable("there is one item only")
    if not d.any():
        raise NotTestable("the two methods score the same on every item")
    counts_by_draw = _draws(len(sums), draws, seed)
    means = np.empty(draws)
    for start in range(0, draws, 500):
        weights = counts_by_draw[start : start + 500].astype(np.float64)
        means[start : start + 500] = (weights @ sums) / (weights @ counts)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    beyond_zero = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    p = min(1.0, 2 * (beyond_zero + 1) / (draws + 1))
    return Result(p=p, effect=100 * float(d.mean()), interval=(100 * float(low), 100 * float(high)), n=len(sums))


@lru_cache(maxsize=2)
def _draws(items: int, draws: int, seed: int) -> NDArray[np.uint8]:
    """Return the count of each item (column) in each draw (row); all pairs of methods use the same draws."""
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(items, size=items), minlength=items) for _ in range(draws)]
    return np.array([np.minimum(row, 255) for row in counts], dtype=np.uint8)


def _apply(test: Callable[..., Result], between: Callable[[], tuple[NDArray[Any], ...]]) -> Result:
    return test(*between())


def _mcnemar_of(first: NDArray[np.float64], second: NDArray[np.float64], clusters: NDArray[np.int64]) -> Result:
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise NotTestable("answers are scored in parts, not as right or wrong; see the bootstrap")
    effect = 100 * float((first - second).mean())
    if len(np.unique(clusters)) < len(clusters):
        return clustered_mcnemar(first - second, clusters)._replace(effect=effect)
    table = [[int(np.sum((first == i) & (second == j))) for j in (1, 0)] for i in (1, 0)]
    return mcnemar(table, exact=table[0][1] + table[1][0] < _EXACT_BELOW)._replace(effect=effect)
