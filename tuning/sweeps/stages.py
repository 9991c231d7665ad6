"""Says which trainings a method needs next in a sweep: a function of the scores so far, the same for all methods.

1. Every rate, with the first seed. While the best is the lowest or the highest, the next rate beyond it is added.
2. The best rates, also with the other seeds. If the best mean is that of the lowest or highest rate, the next one is
   added and the first two stages are repeated with it. The best rate has the best mean of all that have every seed.
3. Each change of another option, by itself, at the best rate and with all seeds.

A tie adds no rate: where all trainings collapse to the same score, nothing says in which direction to search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

DIVERGED = float("-inf")
"""Score of a training that diverged."""


class Point(NamedTuple):
    """One training of a sweep; `change` is empty or an option with its value, such as `batch_size=8`."""

    method: str
    rate: float
    seed: int
    change: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of a sweep, the same for all methods.

    Attributes:
        best: number of rates that are also trained with the other seeds.
        extend: largest number of rates that are added to those of the file.
        changes: options with values, such as `batch_size=8`.
    """

    best: int
    extend: int = 0
    changes: Sequence[str] = ()

    def least(self, rates: int, seeds: int) -> int:
        """Return the number of trainings of a method without added rates."""
        return rates + min(self.best, rates) * (seeds - 1) + len(self.changes) * seeds


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a method is.

    Attributes:
        points: the trainings that are needed as far as is known, in their order.
        missing: those of them without a score.
        best: the best rate, the lowest in a tie; None while rates are being tried, or if all diverged.
        undecided: whether the lowest or the highest of all rates that were tried is the best, or as good.
    """

    points: Sequence[Point]
    missing: Sequence[Point]
    best: float | None = None
    undecided: bool = False


def state(
    method: str,
    rates: Sequence[float],
    seeds: Sequence[int],
    rules: Rules,
    score: Callable[[Point], float | None],
) -> State:
    """Return how far a method is.

    Args:
        rates: the rates of the file.
        seeds: the first is that of the first stage.
        score: returns the mean validation score of a training, `DIVERGED` if it diverged, None if it is missing.
    """

    def missing(points: Sequence[Point]) -> list[Point]:
        return [point for point in points if score(point) is None]

    def known(rate: float, seed: int) -> float:
        value = score(Point(method, rate, seed))
        assert value is not None
        return value

    tried = sorted(rates)
    most = len(tried) + rules.extend
    repeated: dict[float, None] = {}  # a rate that is no longer among the best after others were added keeps its place
    others: list[Point] = []
    while True:
        first = [Point(method, rate, seeds[0]) for rate in tried]
        if left := missing(first):
            return State(points=[*first, *others], missing=left)
        scores = {rate: known(rate, seeds[0]) for rate in tried}
        if added := _beyond(scores, tried, most):
            tried = sorted([*tried, added])
            continue
        repeated |= dict.fromkeys(sorted(tried, key=lambda rate: (-scores[rate], rate))[: rules.best])
        others = [Point(method, rate, seed) for seed in seeds[1:] for rate in repeated]
        if left := missing(others):
            return State(points=[*first, *others], missing=left)
        means = {rate: mean(known(rate, seed) for seed in seeds) for rate in repeated}
        if added := _beyond(means, tried, most):
            tried = sorted([*tried, added])
            continue
        leaders = _leaders(means)
        if not leaders:
            return State(points=[*first, *others], missing=[])
        changed = [Point(method, leaders[0], seed, change) for change in rules.changes for seed in seeds]
        return State(
            points=[*first, *others, *changed],
            missing=missing(changed),
            best=leaders[0],
            undecided=tried[0] in leaders or tried[-1] in leaders,
        )


def _leaders(scores: Mapping[float, float]) -> list[float]:
    """Return the rates with the best score in ascending order; none if all diverged."""
    top = max(scores.values())
    return sorted(rate for rate, score in scores.items() if score == top != DIVERGED)


def _beyond(scores: Mapping[float, float], tried: Sequence[float], most: int) -> float | None:
    """Return the rate beyond the best one, at the ratio of the last two; None if none is needed or allowed."""
    leaders = _leaders(scores)
    if not 2 <= len(tried) < most or len(leaders) != 1 or leaders[0] not in (tried[0], tried[-1]):
        return None
    best = leaders[0]
    exact = best * (best / (tried[1] if best == tried[0] else tried[-2]))
    rounded = float(f"{exact:.3g}")
    rate = rounded if not tried[0] <= rounded <= tried[-1] else exact
    return rate if 0 < rate <= 1 else None
