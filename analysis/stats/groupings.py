"""Groups methods that do not differ significantly: "LoRA = DoRA > VeRA" if the relation is transitive, else letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scikit_posthocs

from analysis.records import Record, find
from analysis.stats.blocked import F_TEST, MEAN, PAIR_TEST
from analysis.stats.cells import pairs

TEXT, LETTERS = "grouping", "letters"


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


def groupings(records: Sequence[Record], *, outcome: str, alpha: float = 0.05) -> list[Record]:
    """Group the methods by the Tukey tests of `blocked`: one record for the text and one per method for its letters."""
    compared = find(records, analysis="blocked", test=PAIR_TEST, outcome=outcome)
    if not compared:
        reason = next((r.note for r in find(records, analysis="blocked", test=F_TEST)), "no test: there are no runs")
        return [Record(outcome=outcome, analysis="groupings", test=TEXT, groups=(), note=reason)]
    means = {r.groups[0]: r.effect or 0.0 for r in find(records, analysis="blocked", test=MEAN, outcome=outcome)}
    p = {(r.groups[0], r.groups[1]): 1.0 if r.p_adjusted is None else r.p_adjusted for r in compared}
    groups = grouping(means, p, alpha=alpha)
    meaning = f"'=' says not told apart at {alpha:g}, which is not the same as equal"
    text = f"{groups.text} ({meaning})" if groups.text else f"no order can be printed; see the letters ({meaning})"
    return [
        Record(outcome=outcome, analysis="groupings", test=TEXT, groups=groups.order, correction="tukey", note=text),
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
        p_matrix[i, j] = p_matrix[j, i] = p[a, b] if (a, b) in p else p[b, a]
    display = scikit_posthocs.compact_letter_display(p_matrix, alpha=alpha, names=list(order))
    letters = {name: str(display[name]).replace(" ", "") for name in order}
    linked = p_matrix >= alpha
    transitive = all((linked[i] == linked[j]).all() for i, j in zip(*np.nonzero(linked), strict=True))
    signs = (" = " if linked[i, i + 1] else " > " for i in range(len(order) - 1))
    text = order[0] + "".join(s + name for s, name in zip(signs, order[1:], strict=True)) if transitive else None
    if text and (text.count(" > ") + 1) != len({tuple(row) for row in linked}):
        text = None  # another group lies between the members of a group
    return Grouping(order=order, letters=letters, text=text)
