"""The tests that claims are bound to. Each says supported, contradicted or undecided, and why.

"No difference" is supported by equivalence at the margin only, and contradicted by a significant difference; "better"
is supported by a significant difference, and contradicted by one the other way or by equivalence. What is neither is
undecided, with the difference that the design could have seen. A claim of several parts is supported if all of them
are, and contradicted if one is. Differences are adjusted for the number of pairs; for equivalence alpha for each is
enough, because all must hold (Berger 1982).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.orders import parse_order, relations_of
from analysis.records import Record, find
from analysis.stats.blocked import F_TEST, PAIR_TEST, blocked
from analysis.stats.cells import enumerate_few, rows
from analysis.stats.contrasts import PAIR_TEST as T_TEST
from analysis.stats.contrasts import SAME_TEST, contrast, same_level
from analysis.stats.correlations import correlate
from analysis.stats.equivalence import PAIR_TEST as TOST
from analysis.stats.equivalence import equivalence, holm
from analysis.stats.groupings import TEXT, group_records
from analysis.stats.power import SEEN, power, seen

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Verdict:
    """What the runs make of a claim.

    Attributes:
        reason: a sentence; its numbers are in the evidence.
        evidence: the records that it rests on.
    """

    verdict: str
    reason: str
    evidence: tuple[Record, ...] = ()


@dataclass(frozen=True)
class ClaimTest:
    """A test by name: how it judges, and whether it takes the arguments of a claim."""

    judge: Callable[..., Verdict]

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise ValueError if an argument is unknown, missing or malformed."""
        parameters = list(inspect.signature(self.judge).parameters.values())[4:]
        names = [p.name for p in parameters]
        for key in arguments:
            if key not in names:
                raise ValueError(f"{key} is no argument of the test; allowed are {', '.join(names) or 'none'}")
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in arguments:
                raise ValueError(f"the test needs the argument {parameter.name}")
        if "order" in arguments:
            parse_order(arguments["order"])
        if not isinstance(arguments.get("columns", []), list):
            raise ValueError("columns must be a list")


def undecided(reason: str, evidence: Sequence[Record] = ()) -> Verdict:
    """Return that verdict."""
    return Verdict(UNDECIDED, reason, tuple(evidence))


def no_difference(table: pd.DataFrame, outcome: str, margin: float, alpha: float) -> Verdict:
    """Do all methods score the same to within the margin?"""
    found = blocked(table, outcome=outcome, alpha=alpha)
    overall = find(found, test=F_TEST)[0]
    if overall.p is None:
        return undecided(overall.note, [overall])
    same = find(equivalence(table, outcome=outcome, margin=margin, alpha=alpha), test=TOST)
    proven = [r for r in same if r.p is not None and r.p < alpha]
    apart = [r for r in find(found, test=PAIR_TEST) if _below(r, alpha)]
    evidence = [overall, *same, *apart]
    if len(proven) == len(same):
        extra = f"; the differences that there are ({_f(overall)}) are smaller than that" if overall.p < alpha else ""
        return Verdict(
            SUPPORTED, f"all {len(same)} pairs are the same within {margin:g} points{extra}", tuple(evidence)
        )
    if overall.p < alpha or apart:
        which = enumerate_few([_pair(r) for r in sorted(apart, key=lambda r: -abs(r.effect or 0))], 3)
        return Verdict(CONTRADICTED, f"{_f(overall)}; apart are {which or 'no single pair for sure'}", tuple(evidence))
    seen_from, note = _power(table, outcome, margin, alpha)
    open_pairs = f"{len(same) - len(proven)} of {len(same)} pairs are not shown to be the same within {margin:g} points"
    return undecided(f"no significant difference ({_f(overall)}), but {open_pairs}{note}", [*evidence, *seen_from])


def order(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    alpha: float,
    order: str,
    factor: str = "method",
    metric: str = "f1",
) -> Verdict:
    """Do the levels of a factor stand in an order such as "A = B > C", or in several, parted by semicolons?

    Args:
        factor: the column whose values are named; method, or one such as tl_ratio, rank, layers or model.
        metric: the column that is compared; ">" means the greater value of it.
    """
    present = sorted({str(value) for value in rows(table, outcome, metric)[factor]}) if factor in table else []
    relations = relations_of(parse_order(order), present if factor == "method" else [])
    named = list(dict.fromkeys(level for first, _, second in relations for level in (first, second)))
    lacking = [level for level in named if not any(same_level(factor, value, level) for value in present)]
    if factor == "method":
        lacking = [level for level in named if level not in present]
    if lacking or not relations:
        return undecided(f"there are no runs with {factor} {enumerate_few(lacking) or order}")
    asked = [(first, second) for first, _, second in relations]
    compare = _methods if factor == "method" else _levels
    compared = compare(table, outcome, asked, factor=factor, metric=metric, margin=margin, alpha=alpha)
    states = [
        _greater(*compared[first, second], alpha, margin)
        if sign == ">"
        else _same(*compared[first, second], alpha, margin)
        for first, sign, second in relations
    ]
    evidence = [record for pair in dict.fromkeys(asked) for record in compared[pair] if record is not None]
    texts = {state: [text for s, text in states if s == state] for state in (SUPPORTED, CONTRADICTED, UNDECIDED)}
    if texts[CONTRADICTED]:
        return Verdict(CONTRADICTED, enumerate_few(texts[CONTRADICTED], 4), tuple(evidence))
    if not texts[UNDECIDED]:
        return Verdict(SUPPORTED, enumerate_few(texts[SUPPORTED], 4), tuple(evidence))
    head = f"{len(texts[UNDECIDED])} of {len(states)} parts are open: " if len(states) > 1 else ""
    seen_from, note = _power(table, outcome, margin, alpha) if (factor, metric) == ("method", "f1") else ([], "")
    return undecided(head + enumerate_few(texts[UNDECIDED], 4) + note, [*evidence, *seen_from])


def differ(table: pd.DataFrame, outcome: str, margin: float, alpha: float, metric: str = "f1") -> Verdict:
    """Do the methods differ in a metric? The reason gives their order."""
    if metric not in table:
        return undecided(f"the runs have no {metric}")
    found = blocked(table, outcome=outcome, metric=metric, alpha=alpha)
    overall = find(found, test=F_TEST)[0]
    if overall.p is None:
        return undecided(overall.note, [overall])
    shown = find(group_records(found, outcome=outcome, alpha=alpha), test=TEXT)[0]
    if overall.p < alpha:
        return Verdict(SUPPORTED, f"{_f(overall)}; from high to low: {shown.note}", (overall, shown))
    same = find(equivalence(table, outcome=outcome, margin=margin, alpha=alpha), test=TOST) if metric == "f1" else []
    if same and all(r.p is not None and r.p < alpha for r in same):
        return Verdict(CONTRADICTED, f"all {len(same)} pairs are the same within {margin:g} points", (overall, *same))
    return undecided(
        f"no significant difference ({_f(overall)}), which does not show that there is none", [overall, *same]
    )


def correlation(
    table: pd.DataFrame, outcome: str, margin: float, alpha: float, columns: list[str], sign: int = 1
) -> Verdict:
    """Does F1 rise (sign 1) or fall (-1) with each of some columns, within languages?"""
    found = holm([correlate(table, outcome=outcome, column=column, alpha=alpha) for column in columns])
    if untested := [r for r in found if r.p is None]:
        return undecided(untested[0].note, found)
    sure = [r for r in found if _below(r, alpha)]
    right, wrong = ([r for r in sure if (r.effect or 0) * side > 0] for side in (sign, -sign))
    told = enumerate_few([f"{r.groups[0]} r = {r.effect:.2f} ({_p(r.p_adjusted)})" for r in wrong or found], 6)
    text = f"{told}; n = {found[0].n} runs, Holm over {len(found)} columns"
    if wrong:
        return Verdict(CONTRADICTED, text, tuple(found))
    return Verdict(SUPPORTED, text, tuple(found)) if len(right) == len(found) else undecided(text, found)


TESTS = {
    "no_difference": ClaimTest(no_difference),
    "order": ClaimTest(order),
    "differ": ClaimTest(differ),
    "correlation": ClaimTest(correlation),
}


Compared = dict[tuple[str, str], tuple[Record, Record | None]]
"""For each pair the record of its difference, first minus second, and the one of its equivalence."""


def _methods(
    table: pd.DataFrame,
    outcome: str,
    asked: Sequence[tuple[str, str]],
    *,
    factor: str,
    metric: str,
    margin: float,
    alpha: float,
) -> Compared:
    found = blocked(table, outcome=outcome, metric=metric, alpha=alpha)
    same = equivalence(table, outcome=outcome, margin=margin, alpha=alpha) if metric == "f1" else []
    nothing = find(found, test=F_TEST)[0]
    differences = {r.groups: r for r in find(found, test=PAIR_TEST)}
    equal = {r.groups: r for r in find(same, test=TOST)}
    return {
        (a, b): (
            _turned(differences.get((b, a))) or differences.get((a, b)) or nothing,
            _turned(equal.get((b, a))) or equal.get((a, b)),
        )
        for a, b in asked
    }


def _levels(
    table: pd.DataFrame,
    outcome: str,
    asked: Sequence[tuple[str, str]],
    *,
    factor: str,
    metric: str,
    margin: float,
    alpha: float,
) -> Compared:
    found = [
        contrast(table, outcome=outcome, factor=factor, upper=a, lower=b, metric=metric, margin=margin, alpha=alpha)
        for a, b in asked
    ]
    differences = holm([find(pair, test=T_TEST)[0] for pair in found])
    equal = holm([find(pair, test=SAME_TEST)[0] for pair in found])
    return {pair: (d, e if metric == "f1" else None) for pair, d, e in zip(asked, differences, equal, strict=True)}


def _turned(record: Record | None) -> Record | None:
    """Return the record of the second minus the first."""
    if record is None:
        return None
    effect, statistic = (None if v is None else -v for v in (record.effect, record.statistic))
    interval = None if record.interval is None else (-record.interval[1], -record.interval[0])
    turned = {"groups": record.groups[::-1], "effect": effect, "statistic": statistic, "interval": interval}
    return Record(**{**vars(record), **turned})


def _greater(difference: Record, same: Record | None, alpha: float, margin: float) -> tuple[str, str]:
    if difference.p is None:
        return UNDECIDED, difference.note
    text = _pair(difference)
    if _below(difference, alpha):
        right = (difference.effect or 0) > 0
        return (SUPPORTED, text) if right else (CONTRADICTED, f"{text}, the other way round")
    if _below(same, alpha):
        return CONTRADICTED, f"{text}, the same within {margin:g} points"
    return UNDECIDED, f"{text}, neither apart nor shown to be the same{_seen(difference, alpha)}"


def _same(difference: Record, same: Record | None, alpha: float, margin: float) -> tuple[str, str]:
    if difference.p is None:
        return UNDECIDED, difference.note
    text = _pair(difference)
    if same is not None and same.p is not None and same.p < alpha:
        return SUPPORTED, f"{text}, the same within {margin:g} points"
    if _below(difference, alpha):
        return CONTRADICTED, text
    return (
        UNDECIDED,
        f"{text}, neither apart nor shown to be the same within {margin:g} points{_seen(difference, alpha)}",
    )


def _below(record: Record | None, alpha: float) -> bool:
    return record is not None and record.p_adjusted is not None and record.p_adjusted < alpha


def _seen(record: Record, alpha: float) -> str:
    """Say what a paired t test could have seen."""
    if record.analysis != "contrast" or not record.statistic or record.effect is None or record.df is None:
        return ""
    least = seen(abs(record.effect / record.statistic), record.df[0], alpha=alpha)
    return f" (n = {record.n}; seen from {least:.1f} points on with power 80 %)"


def _power(table: pd.DataFrame, outcome: str, margin: float, alpha: float) -> tuple[list[Record], str]:
    found = find(power(table, outcome=outcome, margin=margin, alpha=alpha), test=SEEN)
    if not found or found[0].effect is None:
        return found, ""
    return (
        found,
        f"; these {found[0].n} blocks show a pair's difference from {found[0].effect:.1f} points on (power 80 %)",
    )


def _f(record: Record) -> str:
    df = ", ".join(f"{value:g}" for value in record.df or ())
    return f"F({df}) = {record.statistic:.2f}, {_p(record.p)}"


def _pair(record: Record) -> str:
    low, high = record.interval or (float("nan"), float("nan"))
    p = record.p if record.p_adjusted is None else record.p_adjusted
    return f"{record.groups[0]} - {record.groups[1]} {record.effect:+.2f} [{low:.2f}, {high:.2f}] ({_p(p)})"


def _p(p: float | None) -> str:
    return "p unknown" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)
