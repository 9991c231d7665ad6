"""Defines records, the lines of `statistics.json`: each is a test, an estimate, or the reason for its absence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Record:
    """One result of the analysis. Every number in the report comes from a record.

    Means and differences of F1, and their intervals, are in points (0 to 100). A number that is missing or not finite
    is None.

    Attributes:
        outcome: "en" or "tl".
        analysis: the family: replication, blocked, friedman, equivalence, paired, effects, power, ...
        test: the name of the test within the family.
        groups: what is compared: two methods (the difference is the first minus the second), one method, or all.
        df: degrees of freedom, numerator first.
        p_adjusted: p after `correction` for all comparisons of the same family and outcome.
        effect: the estimate; `interval` is its confidence interval (95 % unless the note says otherwise).
        n: number of blocks, runs, items or seeds; the note says which.
        note: what the number means; if p is None, why the test is not possible.
    """

    outcome: str
    analysis: str
    test: str
    groups: tuple[str, ...]
    statistic: float | None = None
    df: tuple[float, ...] | None = None
    p: float | None = None
    p_adjusted: float | None = None
    correction: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("statistic", "p", "p_adjusted", "effect"):
            object.__setattr__(self, name, _finite(getattr(self, name)))
        for name in ("df", "interval"):
            values = getattr(self, name)
            finite = () if values is None else tuple(_finite(value) for value in values)
            object.__setattr__(self, name, finite if finite and None not in finite else None)
        object.__setattr__(self, "groups", tuple(map(str, self.groups)))
        object.__setattr__(self, "n", None if self.n is None else int(self.n))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-serialisable values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Result(NamedTuple):
    """The result of a test on plain numbers; the fields are those of `Record`."""

    statistic: float | None = None
    df: tuple[float, ...] | None = None
    p: float | None = None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None


class NotTestable(Exception):
    """Raised when the data do not allow a test; the message says why."""


def attempt(
    run_test: Callable[[], Result], outcome: str, analysis: str, test: str, groups: Sequence[str], note: str = ""
) -> Record:
    """Run a test and return its record, or a record with the reason why the test is not possible."""
    try:
        return Record(
            outcome=outcome, analysis=analysis, test=test, groups=tuple(groups), note=note, **run_test()._asdict()
        )
    except NotTestable as reason:
        return Record(outcome=outcome, analysis=analysis, test=test, groups=tuple(groups), note=f"no test: {reason}")


def described(outcome: str, test: str, groups: tuple[str, ...], mean: float, sd: float, n: int, note: str) -> Record:
    """Return the record of a mean in a table; the note ends with what it is over."""
    return Record(
        outcome=outcome,
        analysis="description",
        test=test,
        groups=groups,
        effect=mean,
        statistic=sd,
        n=n,
        note=f"effect is the mean, statistic the standard deviation, {note}",
    )


def dumps(records: Iterable[Record]) -> str:
    """Return the text of `statistics.json`: a flat list with one record per line."""
    lines = [json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) for record in records]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def find(records: Iterable[Record], **fields: Any) -> list[Record]:
    """Return the records whose fields have these values."""
    return [record for record in records if all(getattr(record, key) == value for key, value in fields.items())]


def is_significant(record: Record, alpha: float = 0.05) -> bool:
    """Return whether a record has an adjusted p below alpha."""
    return record.p_adjusted is not None and record.p_adjusted < alpha


def _finite(value: Any) -> float | None:
    """Return a finite number, zero without a sign."""
    return float(value) + 0.0 if value is not None and math.isfinite(value) else None
