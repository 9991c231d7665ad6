"""Orders methods by their means: in groups that do not differ significantly ("LoRA = DoRA > VeRA" if the relation is
transitive, else letters), and by their difference from the highest mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scikit_posthocs

from analysis.records import Record, find
from analysis.stats.best import comparable
from analysis.stats.blocked import F_TEST, MEAN, PAIR_TEST
from analysis.stats.cells import pairs
from analysis.stats.differences import PAIR_TESTS, mean_records, pair_tests

TEXT, LETTERS = "grouping", "letters"
_PAIR_TESTS = (PAIR_TEST, *PAIR_TESTS.values())


@dataclass(frozen=True)
class Grouping:
    """Methods from the highest mean to the lowest, grouped by their pairwise tests.

    Attributes:
        letters: compact letter display; two methods share a letter if and only if they do not differ significantly.
        text: "A = B > C", or None if the relation is not transitive (A = B and B = C, but A > C).
    """

    order: tuple[str, ...]
    letters: Mapping[str, str]
    text: str | None


def groupings(
    records: Sequence[Record], *, outcome: str, analysis: str = "blocked", alpha: float = 0.05
) -> list[Record]:
    """Group the methods by the tests of pairs of an analysis: `blocked`, or one of `differences` (named there).

    Returns one record for the text and one per method for its letters. If a significant difference contradicts the
    order of the adjusted means, which incomplete designs allow, the text gives no order.
    """
    of_analysis = find(records, analysis=analysis, outcome=outcome)
    compared = [r for r in of_analysis if r.test in _PAIR_TESTS and len(r.groups) == 2]
    means = {r.groups[0]: r.effect or 0.0 for r in find(of_analysis, test=MEAN)}
    if not compared or not means:
        reasons = [r.note for r in of_analysis if r.test in (F_TEST, *_PAIR_TESTS) and r.note.startswith("no test: ")]
        note = next(iter(reasons), "no test: there are no runs")
        return [Record(outcome=outcome, analysis="groupings", test=TEXT, groups=(), note=note)]
    untested = [(r.groups[0], r.groups[1]) for r in compared if r.p_adjusted is None]
    kept = comparable([*means], untested)
    omitted = [name for name in means if name not in kept]
    means = {name: means[name] for name in kept}
    compared = [r for r in compared if {*r.groups} <= means.keys()]
    p = {(r.groups[0], r.groups[1]): r.p_adjusted for r in compared if r.p_adjusted is not None}
    groups = grouping(means, p, alpha=alpha)
    contradicted = any(
        p[r.groups[0], r.groups[1]] < alpha and (r.effect or 0.0) * (means[r.groups[0]] - means[r.groups[1]]) < 0
        for r in compared
    )
    meaning = f"'=': no significant difference at {alpha:g}, which is not the same as equal"
    ordered = groups.text if not contradicted else None
    meaning += f"; not tested against all others: {', '.join(omitted)}" if omitted else ""
    text = f"{ordered} ({meaning})" if ordered else f"no order can be given; see the letters ({meaning})"
    correction = compared[0].correction if compared else ""
    return [
        Record(outcome=outcome, analysis="groupings", test=TEXT, groups=groups.order, correction=correction, note=text),
        *(
            Record(
                outcome=outcome,
                analysis="groupings",
                test=LETTERS,
                groups=(m,),
                effect=means[m],
                note=groups.letters[m],
            )
            for m in groups.order
        ),
    ]


def grouping(means: Mapping[str, float], p: Mapping[tuple[str, str], float], *, alpha: float = 0.05) -> Grouping:
    """Group methods by their means and the adjusted p of each pair.

    The text is given only if "does not differ significantly" is transitive and no group lies between the members of
    another.
    """
    order = tuple(sorted(means, key=lambda name: (-means[name], name)))
    p_matrix = np.ones((len(order), len(order)))
    for a, b in pairs(order):
        i, j = order.index(a), order.index(b)
        p_matrix[i, j] = p_matrix[j, i] = p.get((a, b), p.get((b, a), 1.0))
    display = scikit_posthocs.compact_letter_display(p_matrix, alpha=alpha, names=list(order))
    letters = {name: str(display[name]).replace(" ", "") for name in order}
    linked = p_matrix >= alpha
    transitive = all((linked[i] == linked[j]).all() for i, j in zip(*np.nonzero(linked), strict=True))
    signs = (" = " if linked[i, i + 1] else " > " for i in range(len(order) - 1))
    text = order[0] + "".join(s + name for s, name in zip(signs, order[1:], strict=True)) if transitive else None
    if text and (text.count(" > ") + 1) != len({tuple(row) for row in linked}):
        text = None  # another group lies between the members of a group
    return Grouping(order=order, letters=letters, text=text)


class FromHighest(NamedTuple):
    """A method's difference from the one with the highest mean, in points.

    Attributes:
        mean: adjusted for the blocks that the method lacks.
        effect: the difference, at most slightly above 0 in incomplete designs; 0 for the highest mean itself, None if
            the pair was not tested.
        interval: simultaneous over all pairs; None for the highest mean itself.
        p: adjusted for all pairs.
    """

    name: str
    mean: float
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None


def differences_from_highest(records: Sequence[Record]) -> list[FromHighest]:
    """Return the methods of the primary analysis of one outcome, the highest mean first."""
    means = sorted(((r.groups[0], r.effect or 0.0) for r in mean_records(records)), key=lambda m: (-m[1], m[0]))
    if not means:
        return []
    best, highest = means[0]
    tested = {frozenset(r.groups): r for r in pair_tests(records) if len(r.groups) == 2 and r.effect is not None}
    found = [FromHighest(best, highest, 0.0)]
    for name, mean in means[1:]:
        record = tested.get(frozenset((name, best)))
        if record is None or record.effect is None:
            found.append(FromHighest(name, mean))
            continue
        sign = 1 if record.groups[0] == name else -1
        ends = None if record.interval is None else sorted(sign * end for end in record.interval)
        interval = None if ends is None else (ends[0], ends[1])
        found.append(FromHighest(name, mean, sign * record.effect, interval, record.p_adjusted))
    return found
