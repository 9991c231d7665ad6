"""Writes the advice: which method to use on the primary outcome, given the margin."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.decimals import fixed, interval
from analysis.naming import names_in
from analysis.records import Record, find, is_significant
from analysis.report.choice import PARAMETERS, Choice, all_at_floor, cheapest, choose, cost_of
from analysis.report.wording import ALPHA, format_points, join
from analysis.stats.best import BEST, within_margin
from analysis.stats.differences import MEAN, PAIR_TESTS, PRIMARY, THESE, mean_records, pair_tests
from analysis.stats.paired import MCNEMAR

Records = Sequence[Record]


def advice(records: Records, primary: str, margin: float) -> list[str]:
    """Return the recommendation in sentences; empty if the methods cannot be compared.

    A method is recommended if it is shown to be at most the margin worse than every other method on the primary
    outcome, at 5 % over all methods; of several, the one with the fewest parameters comes first. A method with half or
    more of its results at or below the floor has not been shown to learn the task and is never recommended.
    """
    choice = choose(records, primary)
    if choice is None:
        return []
    where = _where(records, primary)
    if all_at_floor(records, primary):
        return ["No method is recommended: the methods are not shown to exceed the best shallow baseline in any block."]
    excluded = [name for name in choice.low if name in {*choice.near, *choice.may_be_best}]
    exclusion = [f"Not {join(excluded)}: half or more of the results are not above the floor."] if excluded else []
    exclusion += _not_compared(records, primary)
    if not choice.candidates:
        return [f"No method is recommended {where}: those that may be the best are not above the floor.", *exclusion]
    if not choice.recommended:
        names = choice.candidates
        several = f"{join(names, 'or')} may be the best" if len(names) > 1 else f"{names[0]} has the highest mean"
        return [
            f"No method can be recommended yet {where}: none is shown to be within {format_points(margin)} of the "
            f"best. {several}{_worse(records, primary, choice)}.",
            *exclusion,
            *_by_item(records, primary, names),
        ]
    names = choice.recommended
    first, *others = cheapest(records, names, PARAMETERS) or names
    lead = f"Use {join([first, *others], 'or')} {where}:"
    if len(choice.may_be_best) == 1 and names == choice.may_be_best:
        return [
            f"{lead} significantly better than every other method.",
            *exclusion,
            *_secondary(records, primary, names),
        ]
    if len(names) == 1:
        reason = f"the only method shown to be at most {format_points(margin)} worse than every other"
    else:
        near = f"{join(names)} are shown to be within {format_points(margin)} of the best"
        has = "has" if not others else "have"
        reason = f"{near}, and {join([first, *others])} {has} the fewest trainable parameters"
        reason = reason if cost_of(records, first, PARAMETERS) is not None else near
    return [f"{lead} {reason}.", *exclusion, *_secondary(records, primary, names), *_by_item(records, primary, names)]


def _where(records: Records, primary: str) -> str:
    these = any(r.test == PAIR_TESTS[THESE] for r in pair_tests(find(records, outcome=primary)))
    return f"for {names_in(records).of(primary)}" + (" on languages and ratios like these" if not these else "")


def _not_compared(records: Records, primary: str) -> list[str]:
    of_outcome = find(records, outcome=primary)
    everything = [
        *find(of_outcome, analysis=PRIMARY, test=MEAN),
        *find(of_outcome, analysis="description", test="mean F1"),
    ]
    compared = {r.groups for r in find(of_outcome, analysis=PRIMARY, test=BEST)}
    names = list(dict.fromkeys(r.groups[0] for r in everything if r.groups not in compared))
    return [f"Not compared: {join(names)}, without a test against each of the others."] if names else []


def _worse(records: Records, primary: str, choice: Choice) -> str:
    tested = [r.groups[0] for r in find(records, outcome=primary, analysis=PRIMARY, test=BEST)]
    worse = [name for name in tested if name not in choice.may_be_best]
    return f"; {join(worse)} {'is' if len(worse) == 1 else 'are'} significantly worse" if worse else ""


def _secondary(records: Records, primary: str, names: Sequence[str]) -> list[str]:
    """Say if a recommended method is significantly worse on the other outcome, and not shown within the margin."""
    sentences = []
    for outcome in ("en", "tl"):
        if outcome == primary or primary == "mean":
            continue
        of_outcome = find(records, outcome=outcome, analysis=PRIMARY, test=BEST)
        near = within_margin(of_outcome, PRIMARY, ALPHA)
        worse = [r for r in of_outcome if r.groups[0] in {*names} - {*near} and r.interval and r.interval[1] <= 0]
        for r in worse:
            low, high = r.interval or (0.0, 0.0)
            sentences.append(
                f"In {names_in(records).of(outcome)} (secondary), {r.groups[0]} is significantly worse than the best "
                f"({fixed(r.effect or 0.0, 1)} points, 95 % CI {interval(low, high)})."
            )
    return sentences


def _by_item(records: Records, primary: str, names: Sequence[str]) -> list[str]:
    """Say which of the named adapters answer fewer of the items right than those with the highest mean."""
    outcomes = ("en", "tl") if primary == "mean" else (primary,)
    sentences = []
    for outcome in outcomes:
        means = sorted(mean_records(find(records, outcome=outcome)), key=lambda r: (-(r.effect or 0.0), r.groups))
        if not means:
            continue
        best = means[0].groups[0]
        fewer = sorted(fewer_right(find(records, outcome=outcome), best) & {*names})
        if fewer:
            sentences.append(
                f"Item by item these adapters of {join(fewer)} answer significantly fewer right than those of {best} "
                f"in {names_in(records).of(outcome)} (McNemar, Holm)."
            )
    return sentences


def fewer_right(records: Records, best: str) -> set[str]:
    """Return the methods whose adapters answer significantly fewer items right than those of the best."""
    methods = set()
    for r in find(records, analysis="paired", test=MCNEMAR):
        if best in r.groups and is_significant(r) and r.effect is not None:
            ahead = r.groups[0] if r.effect > 0 else r.groups[1]
            methods |= {*r.groups} - {best} if ahead == best else set()
    return methods
