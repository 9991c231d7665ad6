"""Runs the sides of a comparison alternately and computes medians, quartiles and ratios."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.workers import Stopwatch

Seconds = dict[str, float]
"""`wall` and `cpu` seconds of one measurement."""
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: value of the option `only`.
        work: what is measured.
        against: what it is compared with; empty if only this project is measured.
        goal: the ratio to reach; without `against`, the value to reach.
        precision: precision of both sides.
        less: whether lower is better.
        total: whether to take the ratio of sums instead of medians, for runs that differ from each other.
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
    """Evidence that both sides did the same work.

    Attributes:
        what: what was compared.
        value: a difference, or the share that agrees.
        limit: the highest difference or lowest share allowed; None only reports the value.
        share: whether `value` is a share.
    """

    what: str
    value: float
    limit: float | None
    share: bool = False

    @property
    def holds(self) -> bool:
        """Whether the work was the same; False if the value is NaN."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.share else self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of a row.

    Attributes:
        ours, theirs: values by clock, one per measurement, in `row.unit`; `theirs` may be empty.
        scale: items per measurement, by which the table divides the values.
        per: what the table's values are per, for example "item".
        flops: useful floating-point operations per measurement; None if not counted.
        notes: remarks, each a sentence.
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
        """Return theirs / ours (ours / theirs if `row.less`), of medians or of sums; None without a second side."""
        if not self.theirs:
            return None
        aggregate: Callable[[Sequence[float]], float] = sum if self.row.total else median
        ours, theirs = aggregate(self.ours[clock]), aggregate(self.theirs[clock])
        return ours / theirs if self.row.less else theirs / ours

    def record(self, clock: str) -> dict[str, Any]:
        """Return the entry of results.json, with medians, quartiles and the ratio by `clock`."""
        summary = {side: quartiles_of(values[clock]) for side, values in self.sides().items()}
        value = self.ratio(clock) if self.theirs else summary["ours"]["median"] / self.scale
        assert value is not None
        reached = value <= self.row.goal if self.row.less else value >= self.row.goal
        equal = None if self.equal is None else {**asdict(self.equal), "holds": self.equal.holds}
        fields = {k: v for k, v in asdict(self).items() if k not in ("row", "equal")}
        return {
            **asdict(self.row),
            **fields,
            "equal": equal,
            **summary_keys(summary),
            "value": value,
            "reached": reached,
        }

    def sides(self) -> dict[str, Mapping[str, Sequence[float]]]:
        """Return the sides that were measured."""
        return {"ours": self.ours} | ({"theirs": self.theirs} if self.theirs else {})


def summary_keys(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summaries under their keys in results.json."""
    return {f"{side}_summary": value for side, value in summary.items()}


def quartiles_of(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the number of values."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high, "n": len(values)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The settings of a benchmark.

    Attributes:
        model: value of the project's option `model`.
        folder: the folder of that model.
        pairs: measurements of each side.
        steps: optimizer steps per training measurement.
        items: labelled items per scoring measurement.
        answers: questions per QA measurement.
        probed: items per probe measurement.
        runs: runs of the grid that are measured.
        threads: threads of each side.
        peer_python: the interpreter of the environment with TRL; None if there is none.
        scratch: a temporary folder.
    """

    model: str
    folder: str
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
    """Rows that are measured together because they share a side.

    Attributes:
        minutes: duration with five pairs on two idle cores.
    """

    rows: Sequence[Row]
    minutes: float
    measure: Measure


def alternate(name: str, sides: Mapping[str, Callable[[], Seconds]], pairs: int) -> dict[str, dict[str, list[float]]]:
    """Measure the sides alternately and return their seconds by side and clock.

    The order is reversed after every round, so that a drift in the machine's speed favours no side.
    """
    measured: dict[str, dict[str, list[float]]] = {side: {clock: [] for clock in CLOCKS} for side in sides}
    for number in range(pairs):
        for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            seconds = sides[side]()
            for clock in CLOCKS:
                measured[side][clock].append(seconds[clock])
        latest = ", ".join(f"{side} {values['wall'][-1]:.2f}" for side, values in measured.items())
        print(f"  {name} {number + 1}/{pairs}: {latest} s", file=sys.stderr, flush=True)
    return measured


def timed(work: Callable[[], Any]) -> Callable[[], Seconds]:
    """Return a function that calls `work` and returns the seconds it took."""

    def measure() -> Seconds:
        with Stopwatch() as watch:
            work()
        return watch.seconds()

    return measure


def agreement(ours: Sequence[Any], theirs: Sequence[Any], what: str, *, limit: float | None = 1.0) -> Equality:
    """Return the share of equal predictions; `what` names them in the plural."""
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Equality(what=f"{same} of {len(ours)} {what} the same", value=same / len(ours), limit=limit, share=True)
