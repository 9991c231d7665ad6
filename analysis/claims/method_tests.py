"""Tests of differences between methods, or between levels of another factor, over all runs of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analysis.claims.comparisons import compare_levels, compare_methods, method_differences
from analysis.claims.relations import Relations, relations_of
from analysis.claims.verdicts import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    format_pair,
    judge_equal,
    judge_greater,
    undecided,
)
from analysis.records import NotTestable, Record, find, is_significant
from analysis.stats.cells import enumerate_few, points, rows
from analysis.stats.contrasts import units
from analysis.stats.differences import COUNT, DETECTABLE, PRIMARY, SAME, pair_tests
from analysis.stats.groupings import LETTERS, TEXT, groupings

_EQUAL = 0.1
"""The share by which a column that must be equal may differ."""


def no_difference(table: pd.DataFrame, outcome: str, margin: float, scope: str, alpha: float) -> Verdict:
    """Test whether all methods are equivalent within the margin."""
    records = method_differences(table, outcome, margin=margin, scope=scope, alpha=alpha)
    compared = pair_tests(records)
    if untested := [r for r in compared if r.p is None]:
        return undecided(untested[0].note, untested)
    equivalences = find(records, test=SAME)
    equivalent = [r for r in equivalences if r.p is not None and r.p < alpha]
    significant = [r for r in compared if is_significant(r, alpha)]
    counts = find(records, test=COUNT)
    differing = f"{len(significant)} of {len(compared)} pairs differ significantly"
    evidence = [*counts, *equivalences, *significant]
    if len(equivalent) == len(equivalences):
        addition = f"; the differences ({differing}) are smaller than that" if significant else ""
        return Verdict(
            SUPPORTED,
            f"all {len(equivalences)} pairs are equivalent within {points(margin)}{addition}",
            tuple(evidence),
        )
    if significant:
        listed = enumerate_few(
            [format_pair(r) for r in sorted(significant, key=lambda r: -abs(r.effect or 0))], 3, by="; "
        )
        return Verdict(CONTRADICTED, f"{differing}: {listed}", tuple(evidence))
    detectable, note = _detectable_note(records)
    unproven = f"{len(equivalences) - len(equivalent)} of {len(equivalences)} pairs are not shown to be equivalent"
    unproven += f" within {points(margin)}"
    return undecided(f"no significant difference, but {unproven}{note}", [*evidence, *detectable])


def order(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    order: str,
    factor: str = "method",
    metric: str = "f1",
    equal: str | None = None,
) -> Verdict:
    """Test whether the levels of a factor are in an order such as "A = B > C", or in several separated by semicolons.

    Args:
        order: names values of the factor; for methods see `orders.resolve_method`.
        factor: the column that holds the levels: method, or another such as tl_ratio, rank, layers or model.
        metric: the column that is compared; ">" means that its value is greater.
        equal: a column, such as adapter/trainable_parameters, which must agree within 10 % between paired runs.
    """
    relations = relations_of(order, rows(table, outcome, metric), factor, metric)
    if equal is not None and (unequal := _unequal(table, outcome, factor, relations, equal)):
        return undecided(unequal)
    requested = [(first, second) for first, _, second in relations]
    compare = partial(compare_methods, scope=scope) if factor == "method" else partial(compare_levels, factor=factor)
    pairs = compare(table, outcome, requested, metric=metric, margin=margin, alpha=alpha)
    judgements = [
        (judge_greater if sign == ">" else judge_equal)(pairs[first, second], alpha, margin)
        for first, sign, second in relations
    ]
    evidence = [record for pair in dict.fromkeys(requested) for record in pairs[pair].records()]
    reasons = {state: [text for s, text in judgements if s == state] for state in (SUPPORTED, CONTRADICTED, UNDECIDED)}
    verdict = next((v for v in (CONTRADICTED, UNDECIDED) if reasons[v]), SUPPORTED)
    phrases = {CONTRADICTED: "do not hold", UNDECIDED: "are undecided", SUPPORTED: "hold"}
    others = "".join(f", {len(reasons[v])} {text}" for v, text in phrases.items() if v != verdict and reasons[v])
    summary = (
        f"{len(reasons[verdict])} of {len(judgements)} parts {phrases[verdict]}{others}: "
        if len(judgements) > 1
        else ""
    )
    if factor != "method":
        summary = "in these languages " + summary
    text = summary + enumerate_few(reasons[verdict], 4, by="; ")
    if verdict == UNDECIDED and (factor, metric) == ("method", "f1"):
        detectable, note = _detectable_note(method_differences(table, outcome, margin=margin, scope=scope, alpha=alpha))
        return undecided(text + note, [*evidence, *detectable])
    return Verdict(verdict, text, tuple(evidence))


def differ(table: pd.DataFrame, outcome: str, margin: float, scope: str, alpha: float, metric: str = "f1") -> Verdict:
    """Test whether the methods differ in a metric; the reason gives their order."""
    if metric not in table or table[metric].isna().all():
        return undecided(f"the runs have no {metric}")
    records = method_differences(table, outcome, metric=metric, margin=margin, scope=scope, alpha=alpha)
    compared = [r for r in pair_tests(records) if r.p is not None]
    if not compared:
        return undecided(records[0].note, records[:1])
    grouped = groupings(records, outcome=outcome, analysis=PRIMARY, alpha=alpha)
    groups, letters = find(grouped, test=TEXT)[0], find(grouped, test=LETTERS)
    ordered = groups.note
    if ordered.startswith("no order"):
        lettered = ", ".join(f"{r.groups[0]} ({r.note})" for r in letters)
        ordered = f"{lettered}; methods that share a letter do not differ significantly"
    significant = [r for r in compared if is_significant(r, alpha)]
    counts = find(records, test=COUNT)
    if significant:
        listed = f"{len(significant)} of {len(compared)} pairs differ significantly"
        return Verdict(SUPPORTED, f"{listed}; from high to low: {ordered}", (*counts, groups, *significant))
    tost = find(records, test=SAME)
    if tost and len(tost) == len(pair_tests(records)) and all(r.p is not None and r.p < alpha for r in tost):
        return Verdict(
            CONTRADICTED,
            f"all {len(tost)} pairs are equivalent within {points(margin)}",
            (*counts, *tost),
        )
    return undecided(
        f"no significant difference between {len(compared)} pairs, which does not show equivalence", [*counts, *tost]
    )


def _unequal(table: pd.DataFrame, outcome: str, factor: str, relations: Relations, column: str) -> str:
    """Return why a column is not equal between paired runs of some relation; "" if it is."""
    for first, _, second in relations:
        try:
            sides = units(table, outcome=outcome, factor=factor, upper=first, lower=second, metric=column)
        except NotTestable as reason:
            return f"{column}: {reason}"
        for a, b in zip(*sides, strict=True):
            if not abs(a - b) <= _EQUAL * max(a, b):
                return f"{column} is not equal: {a:,.0f} with {factor} {first} and {b:,.0f} with {second}"
    return ""


def _detectable_note(records: Sequence[Record]) -> tuple[list[Record], str]:
    records = find(records, test=DETECTABLE)
    if not records or records[0].effect is None:
        return records, ""
    return (
        records,
        f"; with these {records[0].n} blocks the minimum detectable difference of a pair is {records[0].effect:.1f} "
        "points at power 80 %",
    )
