"""Builds the first table of the report: scores with intervals and costs of each method, with floor and base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.decimals import fixed, interval
from analysis.measures.shallow_baselines import BEST_FLOOR, count_with_floor
from analysis.records import Record, find
from analysis.stats.differences import mean_records
from analysis.stats.groupings import LETTERS, FromHighest, differences_from_highest

ALONE = " †"
"""Marks a mean over cells in which no other method ran."""
_SIZE, _SECONDS, _PRICE, _LATENCY = "adapter/size_mb", "train/seconds", "train/price", "inference/token_ms"
_COSTS = {
    "adapter/trainable_parameters": "parameters",
    _SIZE: "adapter file, MB",
    "gpu/memory_max_mb": "peak GPU memory, MiB",
    "host/memory_max_mb": "peak host memory, MiB",
    _SECONDS: "seconds",
    _PRICE: "price",
    _LATENCY: "inference, ms a token",
}
_DECIMALS = {_SIZE: 1, _PRICE: 4, _LATENCY: 1}


class Score(NamedTuple):
    """A method's result on one outcome, as text: mean, letters, and difference from the highest mean with its CI."""

    mean: str = ""
    letters: str = ""
    difference: str = ""


class Row(NamedTuple):
    """A row of the table, as text; a field without a value is empty.

    Attributes:
        scores: one for each outcome of the table.
        costs: one for each cost of the table.
    """

    method: str
    arm: str
    scores: tuple[Score, ...]
    costs: tuple[str, ...]


class SummaryTable(NamedTuple):
    """The first table.

    Attributes:
        outcomes: the primary one first.
        costs: headings.
        rows: the methods, the highest mean of the primary outcome first.
        references: the best floor and the base model, where they are known.
        lettered, tested: whether any method has letters, a difference.
        alone: whether a mean is over cells in which no other method ran.
    """

    outcomes: tuple[str, ...]
    costs: tuple[str, ...]
    rows: tuple[Row, ...]
    references: tuple[Row, ...]

    @property
    def lettered(self) -> bool:
        return any(score.letters for row in self.rows for score in row.scores)

    @property
    def tested(self) -> bool:
        return any(score.difference for row in self.rows for score in row.scores)

    @property
    def alone(self) -> bool:
        return any(ALONE in score.mean for row in self.rows for score in row.scores)


def summary_table(
    records: Sequence[Record], methods: Sequence[str], arms: Mapping[str, str], outcomes: Sequence[str]
) -> SummaryTable:
    """Return the table of these methods; `arms` are their arms by name, `outcomes` begin with the primary one."""
    costs = {metric: _costs(records, methods, metric) for metric in _COSTS}
    if costs["gpu/memory_max_mb"]:
        costs["host/memory_max_mb"] = {}
    shown = [metric for metric in _COSTS if costs[metric]]
    scores = {outcome: _scores(find(records, outcome=outcome), methods) for outcome in outcomes}
    ranked = []
    for method in methods:
        own = tuple(scores[outcome][method] for outcome in outcomes)
        row = Row(method, arms.get(method, ""), own, tuple(costs[metric].get(method, "") for metric in shown))
        means = tuple(-float(score.mean.removesuffix(ALONE) or 0) for score in own)
        ranked.append((means, method, row))
    return SummaryTable(
        tuple(outcomes),
        tuple(_COSTS[metric] for metric in shown),
        tuple(row for *_, row in sorted(ranked)),
        tuple(_references(records, outcomes, len(shown))),
    )


def _scores(records: Sequence[Record], methods: Sequence[str]) -> dict[str, Score]:
    """Return the score of each method from the records of one outcome."""
    compared = {method.name: method for method in differences_from_highest(records)}
    letters = {r.groups[0]: r.note for r in find(records, analysis="groupings", test=LETTERS)}
    scores = {}
    for method in methods:
        of_method = find(records, groups=(method,))
        adjusted = mean_records(of_method)
        mean = adjusted or find(of_method, analysis="description", test="mean F1")
        text = "" if not mean else f"{fixed(mean[0].effect or 0.0, 1)}{ALONE if compared and not adjusted else ''}"
        scores[method] = Score(text, letters.get(method, ""), _difference(compared, method))
    return scores


def _difference(compared: Mapping[str, FromHighest], method: str) -> str:
    found = compared.get(method)
    if found is None or not any(other.interval for other in compared.values()):
        return ""
    if found is next(iter(compared.values())):
        return "highest"
    if found.effect is None or found.interval is None:
        return "not tested"
    return f"{fixed(found.effect, 1)} ({interval(*found.interval)})"


def _costs(records: Sequence[Record], methods: Sequence[str], metric: str) -> dict[str, str]:
    """Return the mean cost of each method as text, of seconds with the standard deviation over adapters."""
    means = {r.groups[0]: r.effect for r in find(records, analysis="pareto", test=metric)}
    described: dict[str, list[Record]] = {}
    for record in find(records, analysis="description", test=metric):
        described.setdefault(record.groups[0], []).append(record)
    texts = {}
    for method in methods:
        own = described.get(method, [])
        single = own[0] if len(own) == 1 else None  # in several settings a mean over all would mix them
        mean = means.get(method)
        if mean is None and single is not None:
            mean = single.effect
        if mean is not None:
            deviation = single.statistic if single is not None and metric == _SECONDS else None
            texts[method] = fixed(mean, _DECIMALS.get(metric, 0)) + (
                f" ± {fixed(deviation, 0)}" if deviation is not None else ""
            )
    return texts


def _references(records: Sequence[Record], outcomes: Sequence[str], costs: int) -> list[Row]:
    rows = []
    for name, test in ((BEST_FLOOR, "best floor F1"), ("base model", "base F1")):
        found = find(records, analysis="description", test=test)
        means = {r.outcome: fixed(r.effect, 1) for r in found if r.effect is not None}
        if name == BEST_FLOOR and any(len(set(count_with_floor(records, outcome))) > 1 for outcome in means):
            continue  # some results have no floor, so its mean is over fewer results than the methods' means
        if means:
            scores = tuple(Score(means.get(outcome, "")) for outcome in outcomes)
            rows.append(Row(name, "", scores, ("",) * costs))
    return rows
