"""Builds the table of the report's first screen: scores and costs of each method, with floor and base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.evidence import OUTCOMES
from analysis.measures.shallow_baselines import BEST_FLOOR, count_with_floor
from analysis.records import Record, find
from analysis.stats.differences import mean_records
from analysis.stats.groupings import LETTERS

ALONE = " †"
"""Marks a mean over cells in which no other method ran."""


class Row(NamedTuple):
    """A row of the table of the first screen, as text; a field without a value is empty."""

    method: str
    arm: str
    en: str
    en_letters: str
    tl: str
    tl_letters: str
    parameters: str
    seconds: str


def summary_rows(records: Sequence[Record], methods: Sequence[str], arms: Mapping[str, str]) -> list[Row]:
    """Return a row for each method, sorted by F1 on the target language, best first.

    The best floor and the base model come last, where they are known.
    """
    ranked = []
    for method in methods:
        f1, letters, marks = {}, {}, {}
        for outcome in OUTCOMES:
            of_method = find(records, outcome=outcome, groups=(method,))
            adjusted = mean_records(of_method)
            mean = adjusted or find(of_method, analysis="description", test="mean F1")
            f1[outcome] = mean[0].effect if mean else None
            others = mean_records(find(records, outcome=outcome))
            marks[outcome] = ALONE if others and not adjusted else ""
            letters[outcome] = next((r.note for r in find(of_method, analysis="groupings", test=LETTERS)), "")
        costs = [
            next((r.effect for r in find(records, analysis="pareto", test=cost, groups=(method,))), None)
            for cost in ("adapter/trainable_parameters", "train/seconds")
        ]
        times = [r for r in find(records, analysis="description", test="train/seconds") if r.groups[0] == method]
        deviation = times[0].statistic if len(times) == 1 else None
        texts = [
            text
            for outcome in OUTCOMES
            for text in ("" if f1[outcome] is None else f"{f1[outcome]:.1f}{marks[outcome]}", letters[outcome])
        ]
        cost_texts = ["" if cost is None else f"{cost:,.0f}" for cost in costs]
        cost_texts[1] += f" ± {deviation:,.0f}" if cost_texts[1] and deviation is not None else ""
        row = Row(method, arms.get(method, ""), *texts, *cost_texts)
        ranked.append((-(f1["tl"] or 0.0), -(f1["en"] or 0.0), method, row))
    rows = [row for *_, row in sorted(ranked)]
    for name, test in ((BEST_FLOOR, "best floor F1"), ("base model", "base F1")):
        means = {r.outcome: f"{r.effect:.1f}" for r in find(records, analysis="description", test=test)}
        if name == BEST_FLOOR and any(len(set(count_with_floor(records, outcome))) > 1 for outcome in means):
            continue  # some results have no floor, so its mean is over fewer results than the methods' means
        if means:
            rows.append(Row(name, "", means.get("en", ""), "", means.get("tl", ""), "", "", ""))
    return rows
