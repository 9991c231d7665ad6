"""Says how far the results depend on test items, seeds, collapsed runs and single runs: sections and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.naming import OUTCOMES, Names, names_in
from analysis.records import Record, find, is_significant
from analysis.report.topics import Topic
from analysis.robustness import aggregates, collapse, influence, two_way
from analysis.stats.differences import pair_tests

Records = Sequence[Record]
_MOST = 3
"""Number of conclusions, and of runs or seeds that decide one, on the first screen."""

TOPICS = (
    Topic(
        "other-items",
        "For other test items of the kind",
        "All methods answer the same items, so more seeds do not reduce the chance in the choice of items. The primary "
        "analysis with the variance due to items added to its error, a bootstrap of adapters and items together, and "
        "the shares of the variance of a difference.",
        (two_way.ANALYSIS,),
    ),
    Topic(
        "collapsed",
        "Collapsed runs",
        "A run has collapsed if its {score} lies within the 95 % interval of the floor or below it. The floor is "
        "that of the best shallow baseline on the same items or, without one, of the base model.",
        (collapse.ANALYSIS,),
    ),
    Topic(
        "aggregates",
        "Aggregates over runs",
        "The interquartile mean leaves out the lowest and the highest quarter of a method's runs, over all blocks. The "
        "probability of improvement is that of a better run in the same block. Intervals by a bootstrap over seeds "
        "within blocks (Agarwal et al. 2021).",
        (aggregates.ANALYSIS,),
        ("profile",),
    ),
    Topic(
        "influence",
        "Runs and seeds that decide",
        "The primary analysis without each run and without each seed: those whose absence changes which methods "
        "differ, which are equivalent, or which are among the best.",
        (influence.ANALYSIS,),
    ),
)


def warnings(records: Records) -> list[str]:
    """Return the sentences for the first screen: other test items, collapsed runs, and what decides."""
    return [
        *(sentence for outcome in OUTCOMES for sentence in other_items(records, outcome)),
        *collapsed_runs(records),
        *deciding(records),
    ]


def other_items(records: Records, outcome: str) -> list[str]:
    """Return how many differences hold for other test items, and which source of variance dominates."""
    found = find(records, outcome=outcome, analysis=two_way.ANALYSIS)
    shares = _shares(found)
    if not shares:
        return []
    differ = {r.groups for r in pair_tests(find(records, outcome=outcome)) if is_significant(r)}
    hold = sum(is_significant(r) for r in find(found, test=two_way.OTHER_ITEMS) if r.groups in differ)
    adapters, test_items, both = (shares[source] for source in two_way.SOURCES)
    if max(adapters, test_items) < both:
        advice = "more seeds and more test items narrow the intervals alike"
    elif adapters > test_items:
        advice = "the adapters dominate, so more seeds narrow the intervals more than more test items do"
    else:
        advice = "the test items dominate, so more of them narrow the intervals more than more seeds do"
    where = f"in {names_in(records).of(outcome)}"
    text = f"adapters {adapters:.0f} %, test items {test_items:.0f} %, adapter x item {both:.0f} %"
    sentences = [f"Variance of a difference {where}: {text}; {advice}."]
    if differ:
        held = f"{hold} of {len(differ)} difference{'s' * (len(differ) > 1)} {where}"
        sentences.append(f"{held} also hold{'s' * (len(differ) == 1)} for other test items of the kind.")
    return sentences


def collapsed_runs(records: Records) -> list[str]:
    """Return a sentence for each outcome in which runs have collapsed."""
    sentences = []
    names = names_in(records)
    for outcome in OUTCOMES:
        shares = find(records, outcome=outcome, analysis=collapse.ANALYSIS, test=collapse.SHARE)
        texts = [f"{r.groups[0]} {r.statistic:.0f} of {r.n}" for r in shares if r.groups and r.statistic]
        if texts:
            within = f"({names.score} within the interval of the floor)"
            sentences.append(f"Collapsed runs in {names.of(outcome)} {within}: {', '.join(texts)}.")
    return sentences


def deciding(records: Records) -> list[str]:
    """Return the conclusions that a single run or seed decides, each with those that do; the gravest first."""
    sentences, roles = [], names_in(records)
    for test, what in ((influence.RUN, "run"), (influence.SEED, "seed")):
        names: dict[str, list[str]] = {}
        for r in find(records, analysis=influence.ANALYSIS, test=test):
            for change in r.note.split("; "):
                names.setdefault(change, []).append(r.groups[0])
        ordered = sorted(names, key=lambda change: (_gravity(change), -len(names[change]), change))
        sentences += [f"{_worded(change, roles)} without {_any_of(names[change], what)}." for change in ordered[:_MOST]]
        if (rest := len(ordered) - _MOST) > 0:
            sentences.append(f"{rest} more conclusion{'s' * (rest > 1)} depend{'s' * (rest == 1)} on a single {what}.")
    return sentences


def _shares(found: Records) -> dict[str, float]:
    """Return the share of each source over all pairs, or of the only pair."""
    shares = {}
    for source in two_way.SOURCES:
        known = [r for r in find(found, test=source) if r.effect is not None]
        if known:
            shares[source] = max(known, key=lambda r: len(r.groups)).effect or 0.0
    return shares


def _gravity(change: str) -> int:
    """Return the rank of a change: of the best methods, of a difference, of an equivalence."""
    return 0 if "the best" in change else 1 if "differ" in change else 2


def _worded(change: str, names: Names) -> str:
    """Return "tl: A and B differ" as "In the target language A and B differ"."""
    outcome, _, text = change.rpartition(": ")
    return f"In {names.of(outcome)} {text}" if outcome else text


def _any_of(names: Sequence[str], what: str) -> str:
    shown, rest = list(names[: _MOST + 1]), len(names) - _MOST
    if rest > 1:
        return f"{', '.join(shown[:_MOST])} or any of {rest} more {what}s"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
