"""What is known of pairs of methods, or of pairs of levels of another factor: differences and equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.records import Record, find
from analysis.stats.blocked import F_TEST, PAIR_TEST, blocked
from analysis.stats.contrasts import DETECTABLE, SAME_TEST, contrast
from analysis.stats.contrasts import PAIR_TEST as T_TEST
from analysis.stats.equivalence import PAIR_TEST as TOST
from analysis.stats.equivalence import equivalence
from analysis.stats.multiplicity import holm_records


class Pair(NamedTuple):
    """The records of a pair, first minus second.

    Attributes:
        difference: its test; without p where none can be made.
        equivalence: TOST; none for metrics other than F1, which the margin is not about.
        least: the least difference that the test of the difference sees, where that differs from pair to pair.
    """

    difference: Record
    equivalence: Record | None
    least: Record | None = None

    def records(self) -> list[Record]:
        """Return those that there are."""
        return [record for record in self if record is not None]


def compare_methods(
    table: pd.DataFrame, outcome: str, asked: Sequence[tuple[str, str]], *, metric: str, margin: float, alpha: float
) -> dict[tuple[str, str], Pair]:
    """Compare methods by the primary analysis, Tukey over all methods in the table."""
    found = blocked(table, outcome=outcome, metric=metric, alpha=alpha)
    same = equivalence(table, outcome=outcome, margin=margin, alpha=alpha) if metric == "f1" else []
    nothing = find(found, test=F_TEST)[0]
    differences = {r.groups: r for r in find(found, test=PAIR_TEST)}
    equal = {r.groups: r for r in find(same, test=TOST)}
    return {
        (a, b): Pair(
            _turned(differences.get((b, a))) or differences.get((a, b)) or nothing,
            _turned(equal.get((b, a))) or equal.get((a, b)),
        )
        for a, b in asked
    }


def compare_levels(
    table: pd.DataFrame,
    outcome: str,
    asked: Sequence[tuple[str, str]],
    *,
    factor: str,
    metric: str,
    margin: float,
    alpha: float,
) -> dict[tuple[str, str], Pair]:
    """Compare levels of a column by `contrast`, with Holm over the pairs that are asked for."""
    found = [
        contrast(table, outcome=outcome, factor=factor, upper=a, lower=b, metric=metric, margin=margin, alpha=alpha)
        for a, b in asked
    ]
    differences = holm_records([find(pair, test=T_TEST)[0] for pair in found])
    equal = holm_records([find(pair, test=SAME_TEST)[0] for pair in found])
    least = [find(pair, test=DETECTABLE)[0] for pair in found]
    return {
        pair: Pair(d, e if metric == "f1" else None, s)
        for pair, d, e, s in zip(asked, differences, equal, least, strict=True)
    }


def _turned(record: Record | None) -> Record | None:
    """Return the record of the second minus the first."""
    if record is None:
        return None
    effect, statistic = (None if v is None else -v for v in (record.effect, record.statistic))
    interval = None if record.interval is None else (-record.interval[1], -record.interval[0])
    turned = {"groups": record.groups[::-1], "effect": effect, "statistic": statistic, "interval": interval}
    return Record(**{**vars(record), **turned})
