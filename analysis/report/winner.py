"""Names the one method to use, with how sure that is, for the model registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.decimals import fixed, interval
from analysis.naming import names_in
from analysis.records import NotTestable, Record, find
from analysis.report.advice import advice
from analysis.report.choice import PARAMETERS, all_at_floor, cheapest, choose
from analysis.report.wording import format_points
from analysis.stats.groupings import FromHighest, differences_from_highest

BEST, NEAR, UNDECIDED = "best", "within-margin", "not-distinguished"


class Winner(NamedTuple):
    """The method that the report recommends or, if it recommends none, the one with the highest mean that it may name.

    Attributes:
        method: its name.
        decision: `best` (significantly better than every other), `within-margin` (shown to be at most the margin worse
            than every other) or `not-distinguished`.
        rivals: the other methods that may be the best, if it is one of them.
        compared: all methods that were compared, by their means.
        score: its mean, in words.
        differences: from the highest mean, of the other methods, with simultaneous 95 % intervals.
        advice: the report's advice.
    """

    method: str
    decision: str
    rivals: tuple[str, ...]
    compared: tuple[str, ...]
    score: str
    differences: str
    advice: str


def winner(records: Sequence[Record], primary: str, margin: float) -> Winner:
    """Return the method to use for the primary outcome.

    Of several recommended methods it is one with the fewest parameters, as in the advice. A choice between methods that
    are not distinguished is still a choice that has to be made; it is named as such.

    Raises:
        NotTestable: the methods cannot be compared, or none is shown to have learnt the task.
    """
    choice = choose(records, primary)
    if choice is None:
        raise NotTestable("the methods cannot be compared: it takes two or more with results on the same data")
    if all_at_floor(records, primary):
        raise NotTestable("no method is shown to exceed the best shallow baseline")
    if not choice.candidates:
        raise NotTestable("the methods that may be the best are not above the shallow baselines")
    method = choice.candidates[0]
    if choice.recommended:
        method = (cheapest(records, choice.recommended, PARAMETERS) or choice.recommended)[0]
    alone = choice.may_be_best == [method]
    highest, *others = differences_from_highest(find(records, outcome=primary))
    means = {entry.name: entry.mean for entry in (highest, *others)}
    what = f"{names_in(records).score} in {names_in(records).of(primary)}"
    return Winner(
        method=method,
        decision=(BEST if alone else NEAR) if choice.recommended else UNDECIDED,
        rivals=tuple(name for name in choice.may_be_best if name != method and method in choice.may_be_best),
        compared=tuple(means),
        score=f"mean {fixed(means[method], 1)} points of {what}",
        differences="; ".join([f"{highest.name} has the highest mean", *map(_difference, others)]),
        advice=" ".join(advice(records, primary, margin)),
    )


def decision_text(found: Winner, margin: float) -> str:
    """Return how sure the choice is, as a phrase."""
    if found.decision == BEST:
        return "significantly better than every other method"
    if found.decision == NEAR:
        return f"shown to be within {format_points(margin)} of the best"
    return "not distinguished from " + " and ".join(found.rivals) if found.rivals else "not shown to be the best"


def _difference(entry: FromHighest) -> str:
    if entry.effect is None or entry.interval is None:
        return f"{entry.name} not tested"
    return f"{entry.name} {fixed(entry.effect, 1)} (95 % CI {interval(*entry.interval)})"
