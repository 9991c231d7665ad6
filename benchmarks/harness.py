"""Turns, medians and ratios: what every comparison here shares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.workers import Stopwatch

Seconds = dict[str, float]
"""`wall` and `cpu` seconds of one turn."""
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: for the option `only`.
        work: what is done.
        against: what it is compared with; empty where there is nothing to compare with.
        goal: the ratio to reach; `less` is set where small values are good: a ratio, or a value without `against`.
        precision: of both sides.
        total: whether the ratio is that of the sums, of runs that are not alike, instead of the medians.
    """

    name: str
    work: str
    against: str
    goal: float
    precision: str = "fp32"
    less: bool = False
    total: bool = False
    unit: str = "s"


@dataclass(frozen=True, kw_only=True)
class Equality:
    """What shows that both sides did the same work.

    Attributes:
        what: what was compared.
        value: how far apart they are, or what share agrees.
        limit: what `value` may at most be, or must at least be if it is a share; None only reports it.
    """

    what: str
    value: float
    limit: float | None
    share: bool = False

    @property
    def holds(self) -> bool:
        """Whether the work was the same. No number at all is not the same."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.share else self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a row came to.

    Attributes:
        ours, theirs: values by clock, a turn each, in `row.unit`; `theirs` is empty where there is nothing to compare.
        scale: what values are divided by for the table: items a turn.
        flops: useful floating-point operations a turn, for the share of the machine's peak; None where not counted.
        notes: what else is to be known, each a sentence.
    """

    row: Row
    ours: Mapping[str, Sequence[float]]
    theirs: Mapping[str, Sequence[float]]
    scale: float = 1.0
    per: str = ""
    equal: Equality | None = None
    flops: float | None = None
    notes: Sequence[str] = field(default_factory=list)

    def ratio(self, clock: str) -> float | None:
        """Return the ratio of medians, greater than 1 where ours takes less, or ours to theirs for `less`."""
        if not self.theirs:
            return None
        middle: Callable[[Sequence[float]], float] = sum if self.row.total else median
        ours, theirs = middle(self.ours[clock]), middle(self.theirs[clock])
        return ours / theirs if self.row.less else theirs / ours

    def record(self, clock: str) -> dict[str, Any]:
        """Return all of it for results.json, with medians, quartiles and the ratio by `clock`."""
        summary = {side: quartiles_of(values[clock]) for side, values in self.sides().items()}
        value = self.ratio(clock) if self.theirs else summary["ours"]["median"] / self.scale
        assert value is not None
        reached = value <= self.row.goal if self.row.less else value >= self.row.goal
        equal = None if self.equal is None else {**asdict(self.equal), "holds": self.equal.holds}
        whole = {k: v for k, v in asdict(self).items() if k not in ("row", "equal")}
        return {
            **asdict(self.row),
            **whole,
            "equal": equal,
            **summary_keys(summary),
            "value": value,
            "reached": reached,
        }

    def sides(self) -> dict[str, Mapping[str, Sequence[float]]]:
        """Return the sides that were measured."""
        return {"ours": self.ours} | ({"theirs": self.theirs} if self.theirs else {})


def summary_keys(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return summaries under the names they have in results.json."""
    return {f"{side}_summary": value for side, value in summary.items()}


def quartiles_of(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the number of values."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high, "n": len(values)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows are measured with.

    Attributes:
        model: the option `model` of the project's own entry points; `place` is its folder.
        pairs: turns each side takes.
        steps: optimiser steps of a turn of training.
        items: what a turn scores; `answers` of QA, `probed` by the probe.
        runs: of the grid.
        peer_python: the interpreter of the benchmark's own environment; None where there is none.
        scratch: a folder that is deleted afterwards.
    """

    model: str
    place: str
    pairs: int
    steps: int
    items: int
    answers: int
    probed: int
    runs: int
    threads: int
    peer_python: str | None
    scratch: Path


Measure = Callable[[Bench, Sequence[str]], list[Result]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that are measured together, because they share a side. `minutes` are those of five pairs at rest."""

    rows: Sequence[Row]
    minutes: float
    measure: Measure


def alternate(name: str, sides: Mapping[str, Callable[[], Seconds]], pairs: int) -> dict[str, dict[str, list[float]]]:
    """Have the sides take turns and return their seconds by side and clock.

    The order is turned round after every round, so that a machine that grows slower or faster favours none.
    """
    taken: dict[str, dict[str, list[float]]] = {side: {clock: [] for clock in CLOCKS} for side in sides}
    for number in range(pairs):
        for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            seconds = sides[side]()
            for clock in CLOCKS:
                taken[side][clock].append(seconds[clock])
        shown = ", ".join(f"{side} {values['wall'][-1]:.2f}" for side, values in taken.items())
        print(f"  {name} {number + 1}/{pairs}: {shown} s", file=sys.stderr, flush=True)
    return taken


def timed_turn(work: Callable[[], Any]) -> Callable[[], Seconds]:
    """Return `work` as a turn."""

    def turn() -> Seconds:
        with Stopwatch() as watch:
            work()
        return watch.seconds()

    return turn


def agreement(ours: Sequence[Any], theirs: Sequence[Any], what: str, *, limit: float | None = 1.0) -> Equality:
    """Return what share of the predictions is the same."""
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Equality(what=f"{same} of {len(ours)} {what} the same", value=same / len(ours), limit=limit, share=True)
