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
from functools import partial
from typing import Any

import pandas as pd

from analysis.claims.comparisons import Pair, compare_levels, compare_methods
from analysis.claims.orders import OTHERS, pairwise_relations, parse_order, resolve_method
from analysis.measures.layer_shares import check_layers, columns_of
from analysis.records import NotTestable, Record, find
from analysis.runs.language_probes import LEVELS
from analysis.stats.blocked import F_TEST, PAIR_TEST, blocked
from analysis.stats.cells import enumerate_few, points, rows
from analysis.stats.contrasts import same_level
from analysis.stats.correlations import correlate
from analysis.stats.equivalence import PAIR_TEST as TOST
from analysis.stats.equivalence import equivalence
from analysis.stats.groupings import TEXT, groupings
from analysis.stats.multiplicity import holm_records
from analysis.stats.power import DETECTABLE, power

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
        if "share" in arguments:
            check_layers(**{"layers": None, "depth": None, "level": LEVELS[0], **arguments})


def undecided(reason: str, evidence: Sequence[Record] = ()) -> Verdict:
    """Return that verdict; the reason may be the note of a record without p."""
    return Verdict(UNDECIDED, reason.removeprefix("no test: "), tuple(evidence))


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
        return Verdict(SUPPORTED, f"all {len(same)} pairs are the same within {points(margin)}{extra}", tuple(evidence))
    if overall.p < alpha or apart:
        which = enumerate_few([_pair(r) for r in sorted(apart, key=lambda r: -abs(r.effect or 0))], 3, by="; ")
        return Verdict(CONTRADICTED, f"{_f(overall)}; apart are {which or 'no single pair for sure'}", tuple(evidence))
    seen_from, note = _power(table, outcome, margin, alpha)
    open_pairs = f"{len(same) - len(proven)} of {len(same)} pairs are not shown to be the same within {points(margin)}"
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
        order: its names are values of the factor; of methods see `orders.methods_named`.
        factor: the column whose values are named; method, or one such as tl_ratio, rank, layers or model.
        metric: the column that is compared; ">" means the greater value of it.
    """
    neighbours, frame = parse_order(order), rows(table, outcome, metric)
    present = sorted({str(value) for value in frame[factor]}) if factor in frame else []
    named = [level for level in dict.fromkeys(x for a, _, b in neighbours for x in (a, b)) if level != OTHERS]
    if factor == "method":
        meant = _meant(named, frame)
        if isinstance(meant, str):
            return undecided(meant)
        neighbours = [(meant.get(a, a), sign, meant.get(b, b)) for a, sign, b in neighbours]
        relations = pairwise_relations(neighbours, present)
    else:
        relations = pairwise_relations(neighbours, [])
        lacking = [level for level in named if not any(same_level(factor, value, level) for value in present)]
        if lacking:
            return undecided(f"there are no runs with {factor} {enumerate_few(lacking)}")
    if not relations:
        return undecided(f"there are no methods but {enumerate_few(present)}")
    asked = [(first, second) for first, _, second in relations]
    compare = compare_methods if factor == "method" else partial(compare_levels, factor=factor)
    compared = compare(table, outcome, asked, metric=metric, margin=margin, alpha=alpha)
    states = [
        (_greater if sign == ">" else _same)(compared[first, second], alpha, margin)
        for first, sign, second in relations
    ]
    evidence = [record for pair in dict.fromkeys(asked) for record in compared[pair].records()]
    texts = {state: [text for s, text in states if s == state] for state in (SUPPORTED, CONTRADICTED, UNDECIDED)}
    verdict = next((v for v in (CONTRADICTED, UNDECIDED) if texts[v]), SUPPORTED)
    what = {CONTRADICTED: "do not hold", UNDECIDED: "are open", SUPPORTED: "hold"}
    others = "".join(f", {len(texts[v])} {text}" for v, text in what.items() if v != verdict and texts[v])
    head = f"{len(texts[verdict])} of {len(states)} parts {what[verdict]}{others}: " if len(states) > 1 else ""
    if factor != "method":
        head = "in these languages " + head
    reason = head + enumerate_few(texts[verdict], 4, by="; ")
    if verdict == UNDECIDED and (factor, metric) == ("method", "f1"):
        seen_from, note = _power(table, outcome, margin, alpha)
        return undecided(reason + note, [*evidence, *seen_from])
    return Verdict(verdict, reason, tuple(evidence))


def differ(table: pd.DataFrame, outcome: str, margin: float, alpha: float, metric: str = "f1") -> Verdict:
    """Do the methods differ in a metric? The reason gives their order."""
    if metric not in table or table[metric].isna().all():
        return undecided(f"the runs have no {metric}")
    found = blocked(table, outcome=outcome, metric=metric, alpha=alpha)
    overall = find(found, test=F_TEST)[0]
    if overall.p is None:
        return undecided(overall.note, [overall])
    shown = find(groupings(found, outcome=outcome, alpha=alpha), test=TEXT)[0]
    if overall.p < alpha:
        return Verdict(SUPPORTED, f"{_f(overall)}; from high to low: {shown.note}", (overall, shown))
    same = find(equivalence(table, outcome=outcome, margin=margin, alpha=alpha), test=TOST) if metric == "f1" else []
    if same and all(r.p is not None and r.p < alpha for r in same):
        return Verdict(CONTRADICTED, f"all {len(same)} pairs are the same within {points(margin)}", (overall, *same))
    return undecided(
        f"no significant difference ({_f(overall)}), which does not show that there is none", [overall, *same]
    )


def correlation(
    table: pd.DataFrame, outcome: str, margin: float, alpha: float, columns: list[str], sign: int = 1
) -> Verdict:
    """Does F1 rise (sign 1) or fall (-1) with each of some columns, within languages?"""
    found = holm_records([correlate(table, outcome=outcome, column=column, alpha=alpha) for column in columns])
    if untested := [r for r in found if r.p is None]:
        return undecided(untested[0].note, found)
    sure = [r for r in found if _below(r, alpha)]
    right, wrong = ([r for r in sure if (r.effect or 0) * side > 0] for side in (sign, -sign))
    told = enumerate_few([f"{r.groups[0]} r = {r.effect:.2f} ({_p(r.p_adjusted)})" for r in wrong or found], 6)
    text = f"{told}; n = {found[0].n} runs, Holm over {len(found)} columns"
    if wrong:
        return Verdict(CONTRADICTED, text, tuple(found))
    return Verdict(SUPPORTED, text, tuple(found)) if len(right) == len(found) else undecided(text, found)


def layer_correlation(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    alpha: float,
    share: str,
    layers: str | None = None,
    depth: list[float] | None = None,
    level: str = "token",
    sign: int = 1,
) -> Verdict:
    """Does F1 rise (sign 1) or fall (-1) with the share of a language in each of some layers, within languages?

    Args:
        share: en or tl, as language probes found it.
        layers: which, in the form of the option `layers`; or
        depth: between which depths, where 1 is the last layer: [0.7, 0.9].
        level: token or sequence.
    """
    try:
        columns = columns_of(rows(table, outcome), level=level, share=share, layers=layers, depth=depth)
    except NotTestable as reason:
        return undecided(str(reason))
    return correlation(table, outcome, margin, alpha, columns=columns, sign=sign)


TESTS = {
    "no_difference": ClaimTest(no_difference),
    "order": ClaimTest(order),
    "differ": ClaimTest(differ),
    "correlation": ClaimTest(correlation),
    "layer_correlation": ClaimTest(layer_correlation),
}


def _meant(named: Sequence[str], frame: pd.DataFrame) -> dict[str, str] | str:
    """Return the method that each name means, or the reason why that is not known."""
    who = [tuple(map(str, frame.get(key, pd.Series("", frame.index)))) for key in ("method", "variant", "arm")]
    methods = {label: (variant, arm) for label, variant, arm in sorted(set(zip(*who, strict=True)))}
    found = {name: resolve_method(name, methods) for name in named}
    if lacking := [name for name in named if not found[name]]:
        here = enumerate_few(sorted(methods), 12) or "none"
        return f"there are no runs with method {enumerate_few(lacking)}; the methods here are {here}"
    for name, labels in found.items():
        if len(labels) > 1:
            short = "/".join(methods[labels[-1]])
            also = f" or as {short}" * (resolve_method(short, methods) == labels[-1:])
            return (
                f"{name} is several methods here: {enumerate_few(labels, 12)}; a claim of your own can name one of "
                f"them, as {labels[-1]}{also}, or choose runs by where"
            )
    return {name: labels[0] for name, labels in found.items()}


def _greater(pair: Pair, alpha: float, margin: float) -> tuple[str, str]:
    difference, same = pair.difference, pair.equivalence
    if difference.p is None:
        return UNDECIDED, difference.note.removeprefix("no test: ")
    text = _pair(difference)
    if _below(difference, alpha):
        right = (difference.effect or 0) > 0
        return (SUPPORTED, text) if right else (CONTRADICTED, f"{text}, the other way round")
    if same is not None and _below(same, alpha):
        return CONTRADICTED, f"{text}, the same within {points(margin)} (TOST, {_p(same.p_adjusted)})"
    return UNDECIDED, f"{text}, neither apart nor shown to be the same{_seen(pair.least)}"


def _same(pair: Pair, alpha: float, margin: float) -> tuple[str, str]:
    difference, same = pair.difference, pair.equivalence
    if difference.p is None:
        return UNDECIDED, difference.note.removeprefix("no test: ")
    text = _pair(difference)
    if same is not None and same.p is not None and same.p < alpha:
        return SUPPORTED, f"{text}, the same within {points(margin)} (TOST, {_p(same.p)})"
    if _below(difference, alpha):
        return CONTRADICTED, text
    return (
        UNDECIDED,
        f"{text}, neither apart nor shown to be the same within {points(margin)}{_seen(pair.least)}",
    )


def _below(record: Record, alpha: float) -> bool:
    return record.p_adjusted is not None and record.p_adjusted < alpha


def _seen(least: Record | None) -> str:
    return "" if least is None or least.effect is None else f" (power 80 % from {least.effect:.1f} on, n = {least.n})"


def _power(table: pd.DataFrame, outcome: str, margin: float, alpha: float) -> tuple[list[Record], str]:
    found = find(power(table, outcome=outcome, margin=margin, alpha=alpha), test=DETECTABLE)
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
    if p is None:
        return "p unknown"
    return "p < .001" if p < 0.001 else "p > .999" if p > 0.999 else f"p = {p:.3f}".replace("0.", ".", 1)
