"""Compares pairs of methods, or of levels of another factor, for difference and for equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.measures import floored_blocks
from analysis.records import Record, find
from analysis.stats.cells import in_points
from analysis.stats.contrasts import DETECTABLE, SAME_TEST, contrast
from analysis.stats.contrasts import PAIR_TEST as T_TEST
from analysis.stats.differences import SAME, differences, pair_tests
from analysis.stats.multiplicity import holm_records


class Pair(NamedTuple):
    """The records of a pair, first minus second.

    Attributes:
        difference: the test of the difference; without p if it is not possible.
        equivalence: TOST; None for metrics other than F1, to which the margin does not apply.
        detectable: the minimum detectable difference of the pair, if it differs between pairs.
    """

    difference: Record
    equivalence: Record | None
    detectable: Record | None = None

    def records(self) -> list[Record]:
        """Return the records that are not None."""
        return [record for record in self if record is not None]


def above_floor(table: pd.DataFrame, outcome: str, factor: str, metric: str) -> pd.DataFrame:
    """Return the runs in blocks above the floor, which alone say something about methods and hyperparameters.

    Other metrics than F1 count in all blocks, and so does the ratio, which may be what raises a block above the floor.
    """
    return table if metric != "f1" or factor == "tl_ratio" else floored_blocks.split(table, outcome)[0]


def compare_methods(
    table: pd.DataFrame,
    outcome: str,
    requested: Sequence[tuple[str, str]],
    *,
    metric: str,
    margin: float,
    scope: str,
    alpha: float,
) -> dict[tuple[str, str], Pair]:
    """Compare methods by the primary analysis, adjusted for all pairs of methods in the table."""
    records = method_differences(table, outcome, metric=metric, margin=margin, scope=scope, alpha=alpha)
    difference_by_pair = {r.groups: r for r in pair_tests(records)}
    equivalence_by_pair = {r.groups: r for r in find(records, test=SAME)}
    overall = pair_tests(records)[0]
    return {
        (a, b): Pair(
            _reversed(difference_by_pair.get((b, a))) or difference_by_pair.get((a, b)) or overall,
            _reversed(equivalence_by_pair.get((b, a))) or equivalence_by_pair.get((a, b)),
        )
        for a, b in requested
    }


def method_differences(
    table: pd.DataFrame, outcome: str, *, metric: str = "f1", margin: float, scope: str, alpha: float
) -> list[Record]:
    """Return the records of the primary analysis: F1 in the blocks above the floor, or another metric in all blocks.

    The margin, in points, applies to every F1, including that on a task that was not trained.
    """
    if metric == "f1":
        kept = above_floor(table, outcome, "method", metric)
        return differences(kept, outcome=outcome, scope=scope, margin=margin, alpha=alpha)
    margin_of_metric = margin if in_points(metric) else None
    return differences(table, outcome=outcome, scope=scope, metric=metric, margin=margin_of_metric, alpha=alpha)


def compare_levels(
    table: pd.DataFrame,
    outcome: str,
    requested: Sequence[tuple[str, str]],
    *,
    factor: str,
    metric: str,
    margin: float,
    alpha: float,
) -> dict[tuple[str, str], Pair]:
    """Compare levels of a column by `contrast`, with Holm's adjustment over the requested pairs."""
    table = above_floor(table, outcome, factor, metric)
    contrasts = [
        contrast(table, outcome=outcome, factor=factor, upper=a, lower=b, metric=metric, margin=margin, alpha=alpha)
        for a, b in requested
    ]
    differences = holm_records([find(pair, test=T_TEST)[0] for pair in contrasts])
    equivalences = holm_records([find(pair, test=SAME_TEST)[0] for pair in contrasts])
    detectable = [find(pair, test=DETECTABLE)[0] for pair in contrasts]
    return {
        pair: Pair(d, e if in_points(metric) else None, m)
        for pair, d, e, m in zip(requested, differences, equivalences, detectable, strict=True)
    }


def _reversed(record: Record | None) -> Record | None:
    """Return the record of the opposite difference, second minus first."""
    if record is None:
        return None
    effect, statistic = (None if v is None else -v for v in (record.effect, record.statistic))
    interval = None if record.interval is None else (-record.interval[1], -record.interval[0])
    changed = {"groups": record.groups[::-1], "effect": effect, "statistic": statistic, "interval": interval}
    return Record(**{**vars(record), **changed})
