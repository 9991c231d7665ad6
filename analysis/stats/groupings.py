"""Which methods belong together: "LoRA = DoRA > VeRA" where that can be said, letters where it cannot."""

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
    """Methods from the highest mean to the lowest, with what links those that no test tells apart.

    Attributes:
        letters: for each method; two methods share one if and only if they are not told apart.
        text: "A = B > C", or None where the relation is not transitive (A = B and B = C, but A > C).
    """

    order: tuple[str, ...]
    letters: Mapping[str, str]
    text: str | None


def groupings(found: Sequence[Record], *, outcome: str, alpha: float = 0.05) -> list[Record]:
    """Group the methods by Tukey's comparisons of `blocked`: a record for the text and one for each's letters."""
    compared = find(found, analysis="blocked", test=PAIR_TEST, outcome=outcome)
    if not compared:
        why = next((r.note for r in find(found, analysis="blocked", test=F_TEST)), "no test: there are no runs")
        return [Record(outcome=outcome, analysis="groupings", test=TEXT, groups=(), note=why)]
    means = {r.groups[0]: r.effect or 0.0 for r in find(found, analysis="blocked", test=MEAN, outcome=outcome)}
    p = {(r.groups[0], r.groups[1]): 1.0 if r.p_adjusted is None else r.p_adjusted for r in compared}
    made = grouping(means, p, alpha=alpha)
    meaning = f"'=' says not told apart at {alpha:g}, which is not the same as equal"
    text = f"{made.text} ({meaning})" if made.text else f"no order can be printed; see the letters ({meaning})"
    return [
        Record(outcome=outcome, analysis="groupings", test=TEXT, groups=made.order, correction="tukey", note=text),
        *(
            Record(
                outcome=outcome, analysis="groupings", test=LETTERS, groups=(m,), effect=means[m], note=made.letters[m]
            )
            for m in made.order
        ),
    ]


def grouping(means: Mapping[str, float], p: Mapping[tuple[str, str], float], *, alpha: float = 0.05) -> Grouping:
    """Group methods by their means and the adjusted p of each pair.

    The text is given only where "not told apart" is transitive and no group lies between the members of another.
    """
    order = tuple(sorted(means, key=lambda name: (-means[name], name)))
    together = np.ones((len(order), len(order)))
    for a, b in pairs(order):
        i, j = order.index(a), order.index(b)
        together[i, j] = together[j, i] = p[a, b] if (a, b) in p else p[b, a]
    shown = scikit_posthocs.compact_letter_display(together, alpha=alpha, names=list(order))
    letters = {name: str(shown[name]).replace(" ", "") for name in order}
    linked = together >= alpha
    transitive = all((linked[i] == linked[j]).all() for i, j in zip(*np.nonzero(linked), strict=True))
    signs = (" = " if linked[i, i + 1] else " > " for i in range(len(order) - 1))
    text = order[0] + "".join(s + name for s, name in zip(signs, order[1:], strict=True)) if transitive else None
    if text and (text.count(" > ") + 1) != len({tuple(row) for row in linked}):
        text = None  # a group is split by another one between its members
    return Grouping(order=order, letters=letters, text=text)
