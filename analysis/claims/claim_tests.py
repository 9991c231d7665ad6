"""Tests that a claim can name: each returns a verdict (supported, contradicted or undecided) with its reason.

"No difference" is supported only by equivalence within the margin, and contradicted by a significant difference.
"Better" is supported by a significant difference, and contradicted by one in the opposite direction or by equivalence.
Anything else is undecided; the reason then gives the minimum detectable difference of the design. A claim of several
parts is supported if all of them are, and contradicted if one of them is. Differences are adjusted for the number of
pairs; equivalence needs no adjustment, because all pairs must pass (intersection-union test, Berger 1982).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_type_hints

import pandas as pd
from pydantic import BaseModel, ConfigDict, create_model

from analysis.claims.comparisons import compare_levels, compare_methods, method_differences
from analysis.claims.orders import OTHERS, pairwise_relations, parse_order, resolve_method
from analysis.claims.verdicts import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    format_p,
    format_pair,
    judge_equal,
    judge_greater,
    undecided,
)
from analysis.decimals import fixed
from analysis.measures.layer_shares import check_layer_arguments, select_share_columns
from analysis.records import NotTestable, Record, find, is_significant
from analysis.runs.language_probes import LEVELS
from analysis.stats.cells import enumerate_few, points, rows
from analysis.stats.contrasts import same_level
from analysis.stats.correlations import correlate
from analysis.stats.differences import COUNT, DETECTABLE, PRIMARY, SAME, pair_tests
from analysis.stats.groupings import LETTERS, TEXT, groupings
from analysis.stats.multiplicity import holm_records


@dataclass(frozen=True)
class ClaimTest:
    """A test that claims can name: its function, and a check of the arguments that a claim passes to it."""

    judge: Callable[..., Verdict]

    def argument_types(self) -> type[BaseModel]:
        """Return a schema with the types of the arguments; `check` finds those that are unknown or missing."""
        hints = get_type_hints(self.judge)
        fields: dict[str, Any] = {p.name: (hints[p.name], None) for p in self._parameters()}
        return create_model("Arguments", __config__=ConfigDict(strict=True), **fields)

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Check the arguments of a claim.

        Raises:
            ValueError: an argument is unknown, missing or malformed.
        """
        parameters = self._parameters()
        names = [p.name for p in parameters]
        for key in arguments:
            if key not in names:
                raise ValueError(f"{key} is not an argument of the test; allowed are {', '.join(names) or 'none'}")
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in arguments:
                raise ValueError(f"the test needs the argument {parameter.name}")
        if "order" in arguments:
            parse_order(arguments["order"])
        if arguments.get("columns") == []:
            raise ValueError("columns must be a list of at least one column")
        if arguments.get("sign", 1) not in (1, -1):
            raise ValueError(f"sign {arguments['sign']}; allowed are 1, -1")
        if "share" in arguments:
            check_layer_arguments(**{"layers": None, "depth": None, "level": LEVELS[0], **arguments})

    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.judge).parameters.values())[5:]


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
) -> Verdict:
    """Test whether the levels of a factor are in an order such as "A = B > C", or in several separated by semicolons.

    Args:
        order: names values of the factor; for methods see `orders.resolve_method`.
        factor: the column that holds the levels: method, or another such as tl_ratio, rank, layers or model.
        metric: the column that is compared; ">" means that its value is greater.
    """
    neighbours, frame = parse_order(order), rows(table, outcome, metric)
    present = sorted({str(value) for value in frame[factor]}) if factor in frame else []
    named = [level for level in dict.fromkeys(x for a, _, b in neighbours for x in (a, b)) if level != OTHERS]
    if factor == "method":
        resolved = _resolve(named, frame)
        if isinstance(resolved, str):
            return undecided(resolved)
        neighbours = [(resolved.get(a, a), sign, resolved.get(b, b)) for a, sign, b in neighbours]
        relations = pairwise_relations(neighbours, present)
    else:
        relations = pairwise_relations(neighbours, [])
        missing = [level for level in named if not any(same_level(factor, value, level) for value in present)]
        if missing:
            return undecided(f"there are no runs with {factor} {enumerate_few(missing)}")
    if not relations:
        return undecided(f"there are no methods other than {enumerate_few(present)}")
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
    reason = summary + enumerate_few(reasons[verdict], 4, by="; ")
    if verdict == UNDECIDED and (factor, metric) == ("method", "f1"):
        detectable, note = _detectable_note(method_differences(table, outcome, margin=margin, scope=scope, alpha=alpha))
        return undecided(reason + note, [*evidence, *detectable])
    return Verdict(verdict, reason, tuple(evidence))


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


def correlation(
    table: pd.DataFrame, outcome: str, margin: float, scope: str, alpha: float, columns: list[str], sign: int = 1
) -> Verdict:
    """Test whether F1 rises (sign 1) or falls (-1) with each of the columns, within languages."""
    records = holm_records([correlate(table, outcome=outcome, column=column, alpha=alpha) for column in columns])
    if without_p := [r for r in records if r.p is None]:
        return undecided(without_p[0].note, records)
    significant = [r for r in records if is_significant(r, alpha)]
    as_claimed, opposite = ([r for r in significant if (r.effect or 0) * side > 0] for side in (sign, -sign))
    listed = enumerate_few(
        [f"{r.groups[0]} r = {fixed(r.effect or 0.0, 2)} ({format_p(r.p_adjusted)})" for r in opposite or records], 6
    )
    text = f"{listed}; n = {records[0].n} runs, Holm over {len(records)} columns"
    if opposite:
        return Verdict(CONTRADICTED, text, tuple(records))
    return Verdict(SUPPORTED, text, tuple(records)) if len(as_claimed) == len(records) else undecided(text, records)


def layer_correlation(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    share: str,
    layers: str | int | None = None,
    depth: list[float] | None = None,
    level: str = "token",
    sign: int = 1,
) -> Verdict:
    """Test whether F1 rises (sign 1) or falls (-1) with the share of a language in each of the selected layers.

    Correlations are within languages; shares come from language probes. Pass either `layers` or `depth`.

    Args:
        share: the language of the share, en or tl.
        layers: the layers, in the form of the option `layers`.
        depth: the range of relative depths, where 1 is the last layer, such as [0.7, 0.9].
        level: token or sequence.
    """
    try:
        columns = select_share_columns(rows(table, outcome), level=level, share=share, layers=layers, depth=depth)
    except NotTestable as reason:
        return undecided(str(reason))
    return correlation(table, outcome, margin, scope, alpha, columns=columns, sign=sign)


TESTS = {
    "no_difference": ClaimTest(no_difference),
    "order": ClaimTest(order),
    "differ": ClaimTest(differ),
    "correlation": ClaimTest(correlation),
    "layer_correlation": ClaimTest(layer_correlation),
}


def _resolve(named: Sequence[str], frame: pd.DataFrame) -> dict[str, str] | str:
    """Return the method that each name refers to, or the reason why it cannot be resolved."""
    columns = [tuple(map(str, frame.get(key, pd.Series("", frame.index)))) for key in ("method", "variant", "arm")]
    methods = {label: (variant, arm) for label, variant, arm in sorted(set(zip(*columns, strict=True)))}
    matches = {name: resolve_method(name, methods) for name in named}
    if missing := [name for name in named if not matches[name]]:
        available = enumerate_few(sorted(methods), 12) or "none"
        return f"there are no runs with method {enumerate_few(missing)}; the methods here are {available}"
    for name, labels in matches.items():
        if len(labels) > 1:
            short = "/".join(methods[labels[-1]])
            alternative = f" or as {short}" * (resolve_method(short, methods) == labels[-1:])
            return (
                f"{name} is several methods here: {enumerate_few(labels, 12)}; in your own claims file, name one of "
                f"them, as {labels[-1]}{alternative}, or choose runs by where"
            )
    return {name: labels[0] for name, labels in matches.items()}


def _detectable_note(records: Sequence[Record]) -> tuple[list[Record], str]:
    records = find(records, test=DETECTABLE)
    if not records or records[0].effect is None:
        return records, ""
    return (
        records,
        f"; with these {records[0].n} blocks the minimum detectable difference of a pair is {records[0].effect:.1f} "
        "points at power 80 %",
    )
