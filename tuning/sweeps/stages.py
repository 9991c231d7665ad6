"""Says which trainings a method needs next in a sweep: a function of the scores so far, the same for all methods.

1. Every rate, with the first seed. While the best is the lowest or the highest, the next rate beyond it is added.
2. The best rates, also with the other seeds. If the best by the mean is on an edge now, the first stage goes on.
3. Each change of another option, by itself, at the best rate and with all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        best: the best rate; None while rates are being tried.
        undecided: whether the best rate is the lowest or the highest of all that were tried.
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
    while True:
        first = [Point(method, rate, seeds[0]) for rate in tried]
        if left := missing(first):
            return State(points=first, missing=left)
        ranked = sorted(tried, key=lambda rate: (-known(rate, seeds[0]), rate))
        if added := _beyond(ranked[0], tried, most):
            tried = sorted([*tried, added])
            continue
        repeated = [Point(method, rate, seed) for seed in seeds[1:] for rate in ranked[: rules.best]]
        if left := missing(repeated):
            return State(points=[*first, *repeated], missing=left)
        best = max(sorted(ranked[: rules.best]), key=lambda rate: mean(known(rate, seed) for seed in seeds))
        if added := _beyond(best, tried, most):
            tried = sorted([*tried, added])
            continue
        changed = [Point(method, best, seed, change) for change in rules.changes for seed in seeds]
        return State(
            points=[*first, *repeated, *changed],
            missing=missing(changed),
            best=best,
            undecided=best in (tried[0], tried[-1]),
        )


def _beyond(best: float, tried: Sequence[float], most: int) -> float | None:
    """Return the rate beyond the best one, at the ratio of the last two; None if none is needed or allowed."""
    if len(tried) < 2 or len(tried) >= most or best not in (tried[0], tried[-1]):
        return None
    neighbour = tried[1] if best == tried[0] else tried[-2]
    rate = float(f"{best * best / neighbour:.3g}")
    return rate if rate <= 1 else None
