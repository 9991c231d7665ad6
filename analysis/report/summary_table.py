"""The table of the report's first screen: what each method scores and costs, and what it is to be measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.evidence import OUTCOMES
from analysis.measures.shallow_baselines import BEST_FLOOR, count_with_floor
from analysis.records import Record, find
from analysis.stats.blocked import MEAN
from analysis.stats.groupings import LETTERS

ALONE = " †"
"""Marks a mean in the first table that is over cells in which no other method ran."""


class Row(NamedTuple):
    """A method in the table of the first screen; texts are empty where there is nothing to show."""

    method: str
    arm: str
    en: str
    en_letters: str
    tl: str
    tl_letters: str
    parameters: str
    seconds: str


def first_table(records: Sequence[Record], methods: Sequence[str], arms: Mapping[str, str]) -> list[Row]:
    """Return what the first screen shows of each method: arm, mean F1, letters, costs; the best in the target first.

    What methods are measured by comes last: the best floor and the base model, as far as they are known.
    """
    found = []
    for method in methods:
        f1, letters, marks = {}, {}, {}
        for outcome in OUTCOMES:
            own = find(records, outcome=outcome, groups=(method,))
            adjusted = find(own, analysis="blocked", test=MEAN)
            mean = adjusted or find(own, analysis="description", test="mean F1")
            f1[outcome] = mean[0].effect if mean else None
            others = find(records, outcome=outcome, analysis="blocked", test=MEAN)
            marks[outcome] = ALONE if others and not adjusted else ""
            letters[outcome] = next((r.note for r in find(own, analysis="groupings", test=LETTERS)), "")
        costs = [
            next((r.effect for r in find(records, analysis="pareto", test=cost, groups=(method,))), None)
            for cost in ("adapter/trainable_parameters", "train/seconds")
        ]
        times = [r for r in find(records, analysis="description", test="train/seconds") if r.groups[0] == method]
        apart = times[0].statistic if len(times) == 1 else None
        texts = [
            text
            for outcome in OUTCOMES
            for text in ("" if f1[outcome] is None else f"{f1[outcome]:.1f}{marks[outcome]}", letters[outcome])
        ]
        told = ["" if cost is None else f"{cost:,.0f}" for cost in costs]
        told[1] += f" ± {apart:,.0f}" if told[1] and apart is not None else ""
        row = Row(method, arms.get(method, ""), *texts, *told)
        found.append((-(f1["tl"] or 0.0), -(f1["en"] or 0.0), method, row))
    ordered = [row for *_, row in sorted(found)]
    for name, test in ((BEST_FLOOR, "best floor F1"), ("base model", "base F1")):
        of = {r.outcome: f"{r.effect:.1f}" for r in find(records, analysis="description", test=test)}
        if name == BEST_FLOOR and any(len(set(count_with_floor(records, outcome))) > 1 for outcome in of):
            continue  # it is a mean over other results than the methods'
        if of:
            ordered.append(Row(name, "", of.get("en", ""), "", of.get("tl", ""), "", "", ""))
    return ordered
