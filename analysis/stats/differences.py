"""The primary analysis: every pair of methods on its own error, with intervals that hold for all pairs at once.

Two questions, each with its error:

- "these": do the methods differ on the languages and ratios that were run? Blocks are fixed, the error is that of the
  seeds: differences of the two methods over the seeds of each block.
- "like-these": would they differ on other languages and ratios of the kind? The error is how the differences of cell
  means vary from block to block.

Each pair has the variance of its own differences, moderated towards the mean variance of all pairs as far as the data
show the variances alike (empirical Bayes; Smyth 2004): where they are unlike, as between a steady and an erratic
method, each pair keeps its own. The critical value is that of the greatest statistic of all pairs: its distribution is
simulated for the very design (methods, blocks, seeds, and what is missing), so order, letters and intervals agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.records import NotTestable, Record, Result, find
from analysis.stats.best import best_records
from analysis.stats.cells import Cells, cells
from analysis.stats.distributions import noncentrality
from analysis.stats.equivalence import PAIR_TEST, tost_record
from analysis.stats.moderated import Array, Errors, least_p, moderated
from analysis.stats.multiplicity import holm_records
from analysis.stats.units import adjusted_means, arrange

THESE, LIKE_THESE = SCOPES = ("these", "like-these")
PRIMARY, OTHER = "primary", "other scope"
WHERE = {THESE: "on these blocks", LIKE_THESE: "on blocks like these"}
PAIR_TESTS = {scope: f"difference {where}" for scope, where in WHERE.items()}
SAME, MEAN, COUNT, DETECTABLE = PAIR_TEST, "adjusted mean", "pairs that differ", "minimum detectable difference, pair"


@dataclass(frozen=True)
class Comparison:
    """All pairs of a table.

    Attributes:
        pairs: (pairs, 2) indices of the methods.
        errors: the pairs' differences and errors, NaN for a pair that cannot be tested.
        null: (draws,) the least p of all pairs in simulated designs without a difference, sorted.
        n: (pairs,) number of blocks (like-these) or of adapters with the same block and seed (these) in common.
    """

    pairs: NDArray[np.int64]
    errors: Errors
    null: Array
    n: NDArray[np.int64]

    def adjusted(self, p: float) -> float:
        """Return p adjusted for all pairs; below what the draws resolve it is Bonferroni's."""
        share = (1 + np.searchsorted(self.null, p, side="right")) / (1 + len(self.null))
        return float(min(1.0, max(p, min(share, p * int(np.isfinite(self.errors.p).sum())))))

    def critical(self, alpha: float) -> float:
        """Return the p of a pair alone below which its adjusted p is below alpha."""
        return float(self.null[max(0, int(np.ceil(alpha * (1 + len(self.null)))) - 2)])


def differences(
    table: pd.DataFrame,
    *,
    outcome: str,
    scope: str = THESE,
    metric: str = "f1",
    margin: float | None = None,
    alpha: float = 0.05,
    analysis: str = PRIMARY,
    unit: str = "points",
) -> list[Record]:
    """Compare all pairs of methods for difference and, given a margin, for equivalence (TOST, Holm).

    `unit` is that of the metric, in the plural.

    Returns one record for each pair and test, the adjusted mean of each method, given a margin its difference from the
    best of the others (see `best_records`), and the minimum detectable difference of a pair at 80 % power. If the
    design is too small, one record of the pair test says why.
    """
    return cell_differences(
        cells(table, outcome, metric),
        outcome=outcome,
        scope=scope,
        margin=margin,
        alpha=alpha,
        analysis=analysis,
        unit=unit,
    )


def cell_differences(
    table_cells: Cells,
    *,
    outcome: str,
    scope: str,
    margin: float | None,
    alpha: float = 0.05,
    analysis: str = PRIMARY,
    unit: str = "points",
) -> list[Record]:
    """Return the records of `differences` from cells that are computed already."""
    test, note = PAIR_TESTS[scope], _note(table_cells, scope)
    try:
        compared = compare(table_cells, scope)
    except NotTestable as reason:
        text = f"no test: {reason}"
        return [Record(outcome=outcome, analysis=analysis, test=test, groups=table_cells.methods, note=text)]
    records = [
        Record(outcome=outcome, analysis=analysis, test=MEAN, groups=(name,), effect=mean)
        for name, mean in _method_means(table_cells).items()
    ]
    critical = compared.critical(alpha)
    effects, errors, dfs, _ = compared.errors
    halves = stats.t.isf(critical / 2, dfs) * errors
    same: list[Record] = []
    for index, (i, j) in enumerate(compared.pairs):
        pair = (table_cells.methods[i], table_cells.methods[j])
        effect, error, df, p = (float(values[index]) for values in compared.errors)
        n = int(compared.n[index])
        if not np.isfinite(p):
            why = f"no test: {pair_reason(n, scope)}"
            records.append(Record(outcome=outcome, analysis=analysis, test=test, groups=pair, note=why))
            continue
        half = float(halves[index])
        result = Result(effect / error, (df,), p, effect, (effect - half, effect + half), n)
        records.append(
            Record(
                outcome=outcome,
                analysis=analysis,
                test=test,
                groups=pair,
                p_adjusted=compared.adjusted(p),
                correction="max t",
                note=note,
                **result._asdict(),
            )
        )
        if margin is not None:
            same.append(tost_record(outcome, analysis, pair, effect, error, df, n, margin, alpha, WHERE[scope]))
    records += holm_records(same)
    if margin is not None:
        records += best_records(
            table_cells.methods,
            compared.pairs,
            effects,
            halves,
            errors,
            dfs,
            margin=margin,
            outcome=outcome,
            analysis=analysis,
        )
    tested = [r for r in records if r.test == test and r.p_adjusted is not None]
    count = Record(
        outcome=outcome,
        analysis=analysis,
        test=COUNT,
        groups=table_cells.methods,
        effect=len(tested),
        n=sum((r.p_adjusted or 0.0) < alpha for r in tested),
        note="n of the pairs tested (effect) differ significantly",
    )
    return [*records, count, _detectable(compared, table_cells, outcome, analysis, alpha, unit)]


def pair_tests(records: Sequence[Record], analysis: str = PRIMARY) -> list[Record]:
    """Return the tests of pairs (or the record that says why there are none) among the records of an analysis."""
    return [r for r in records if r.analysis == analysis and r.test in PAIR_TESTS.values()]


def mean_records(records: Sequence[Record]) -> list[Record]:
    """Return the adjusted means of the primary analysis or, if it cannot be made, those of the other scope."""
    return find(records, analysis=PRIMARY, test=MEAN) or find(records, analysis=OTHER, test=MEAN)


def compare(table_cells: Cells, scope: str) -> Comparison:
    """Compare all pairs of methods.

    Raises:
        NotTestable: fewer than two methods, no pair with an error, or nothing varies.
    """
    methods = table_cells.methods
    layout = arrange(table_cells.units)
    check_size(len(methods), len(layout.blocks), len(layout.seeds), scope)
    values = scoped_values(table_cells, scope)
    first, second = np.triu_indices(len(methods), 1)
    paired = values[first] - values[second]
    if np.isnan(paired).all():
        raise NotTestable(pair_reason(0, scope))
    if np.nanmax(np.abs(paired)) <= 1e-10:
        raise NotTestable("nothing varies: the methods are the same in every run")
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = moderated(paired)
    if not np.isfinite(errors.p).any():
        shared = (~np.isnan(paired)).sum(axis=(1, 2))
        raise NotTestable(pair_reason(int(shared.max()), scope))
    return Comparison(
        pairs=np.stack([first, second], axis=1),
        errors=errors,
        null=least_p(np.isnan(values).tobytes(), values.shape),
        n=(~np.isnan(paired)).sum(axis=(1, 2)),
    )


def scoped_values(table_cells: Cells, scope: str) -> Array:
    """Return the values whose variation is the error of a scope: (methods, blocks, replicates), NaN where missing."""
    if scope == LIKE_THESE:
        return table_cells.means.to_numpy(dtype=float).T[:, None, :]
    return arrange(table_cells.units).values


def check_size(methods: int, blocks: int, seeds: int, scope: str) -> None:
    """Check that the numbers of methods, blocks and seeds allow a comparison.

    Raises:
        NotTestable: they do not.
    """
    if methods < 2:
        raise NotTestable("there is one method only" if methods else "there are no runs")
    if scope == LIKE_THESE and blocks < 2:
        raise NotTestable("there is one block only, which says nothing about others")
    if scope == THESE and seeds < 2:
        raise NotTestable("there is one seed only, and the error on these blocks is that of the seeds")


def _method_means(table_cells: Cells) -> dict[str, float]:
    """Return the mean of each method over blocks, adjusted for blocks that it lacks."""
    by_seed = table_cells.unit == "seed"
    table = arrange(table_cells.units).values[:, 0, :] if by_seed else table_cells.means.to_numpy(dtype=float).T
    known = ~np.isnan(table).all(axis=1)
    values, _ = adjusted_means(table[known])
    names = [table_cells.methods[position] for position in np.flatnonzero(known)]
    return {name: float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}


def _detectable(
    compared: Comparison, table_cells: Cells, outcome: str, analysis: str, alpha: float, unit: str
) -> Record:
    tested = np.isfinite(compared.errors.p)
    error, df = (float(np.median(values[tested])) for values in (compared.errors.error, compared.errors.df))
    critical = float(stats.t.isf(compared.critical(alpha) / 2, df))
    return Record(
        outcome=outcome,
        analysis=analysis,
        test=DETECTABLE,
        groups=table_cells.methods,
        effect=noncentrality(df, critical, 0.8) * error,
        n=len(table_cells.means),
        note=f"{unit}, for a pair with the median error, power 80%; n blocks",
    )


def _note(table_cells: Cells, scope: str) -> str:
    if scope == THESE:
        text = "error: seeds within blocks; n adapters with the same block and seed"
    else:
        text = "error: method x block; n blocks"
    return f"{text}; 95% CI simultaneous over all pairs; {table_cells.note}"


def pair_reason(n: int, scope: str) -> str:
    """Return why a pair that has so many units in common cannot be tested."""
    if scope == LIKE_THESE:
        if n > 1:
            return "the difference is the same in all blocks"
        return f"the two methods have {n or 'no'} block{'s' * (n != 1)} in common, two are needed"
    if n < 1:
        return "the two methods share no block and seed"
    return "no block has two seeds in common, or the difference is the same in all"
