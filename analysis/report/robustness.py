"""Says how far the results depend on test items, seeds, collapsed runs and single runs: sections and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.measures.shallow_baselines import BEST_FLOOR
from analysis.records import Record, find
from analysis.report.sections import Topic
from analysis.report.sentences import ALPHA, NAMES
from analysis.robustness import aggregates, collapse, influence, two_way
from analysis.stats.differences import pair_tests

Records = Sequence[Record]
_MOST = 3
"""Number of runs or seeds named on the first screen."""

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
        f"A run has collapsed if its F1 lies within the 95 % interval of the floor or below it. The floor is the "
        f"{BEST_FLOOR} or, without one, the base model.",
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
        *(sentence for outcome in NAMES for sentence in other_items(records, outcome)),
        *collapsed_runs(records),
        *deciding(records),
    ]


def other_items(records: Records, outcome: str) -> list[str]:
    """Return how many differences hold for other test items, and which source of variance dominates."""
    found = find(records, outcome=outcome, analysis=two_way.ANALYSIS)
    shares = _shares(found)
    if not shares:
        return []
    differ = {r.groups for r in pair_tests(find(records, outcome=outcome)) if _significant(r)}
    hold = sum(_significant(r) for r in find(found, test=two_way.OTHER_ITEMS) if r.groups in differ)
    adapters, items, both = (shares[source] for source in two_way.SOURCES)
    text = f"adapters {adapters:.0f} %, test items {items:.0f} %, both together {both:.0f} %"
    if max(adapters, items) < both:
        advice = "more seeds and more test items narrow the intervals alike"
    elif adapters > items:
        advice = "seeds dominate: more of them narrow the intervals more than more test items do"
    else:
        advice = "test items dominate: more of them narrow the intervals more than more seeds do"
    start = f"In {NAMES[outcome]}"
    sentences = []
    if differ:
        verb = "holds" if hold == 1 else "hold"
        of = "the 1 difference" if len(differ) == 1 else f"the {len(differ)} differences"
        sentences.append(f"{start} {hold} of {of} {verb} for other test items of the kind too.")
    return [*sentences, f"{start} the variance of a difference is due to {text}; {advice}."]


def collapsed_runs(records: Records) -> list[str]:
    """Return a sentence for each outcome in which runs have collapsed."""
    sentences = []
    for outcome, language in NAMES.items():
        shares = find(records, outcome=outcome, analysis=collapse.ANALYSIS, test=collapse.SHARE)
        texts = [f"{r.groups[0]} {r.statistic:.0f} of {r.n}" for r in shares if r.groups and r.statistic]
        if texts:
            sentences.append(f"Collapsed runs in {language} (F1 within the interval of the floor): {', '.join(texts)}.")
    return sentences


def deciding(records: Records) -> list[str]:
    """Name the runs and seeds without which a conclusion changes, those that change most first."""
    sentences = []
    for test, what in ((influence.RUN, "runs"), (influence.SEED, "seeds")):
        found = find(records, analysis=influence.ANALYSIS, test=test)
        ordered = sorted(found, key=lambda r: (-(r.n or 0), r.groups))
        sentences += [f"Without {' '.join(r.groups)} {_worded(r.note)}." for r in ordered[:_MOST]]
        if rest := len(ordered) - _MOST if len(ordered) > _MOST else 0:
            sentences.append(f"{rest} more {what if rest > 1 else what[:-1]} decide{'s' * (rest == 1)} a conclusion.")
    return sentences


def _shares(found: Records) -> dict[str, float]:
    """Return the share of each source over all pairs, or of the only pair."""
    shares = {}
    for source in two_way.SOURCES:
        known = [r for r in find(found, test=source) if r.effect is not None]
        if known:
            shares[source] = max(known, key=lambda r: len(r.groups)).effect or 0.0
    return shares


def _worded(note: str) -> str:
    changes = note.split("; ")
    for outcome, language in NAMES.items():
        changes = [change.replace(f"{outcome}: ", f"in {language} ") for change in changes]
    rest = len(changes) - _MOST
    return ", ".join(changes[:_MOST]) + (f" and {rest} more conclusion{'s' * (rest > 1)} change" if rest > 0 else "")


def _significant(record: Record) -> bool:
    return record.p_adjusted is not None and record.p_adjusted < ALPHA
