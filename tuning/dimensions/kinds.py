"""The dimensions of a search space: lists of values and ranges of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SHARES = ("warmup", "dropout")
"""Options whose ranges have a linear scale."""
_EDGE = 0.02
"""An optimum within this fraction of a range's width, on its scale, counts as on its edge."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A list of values; a list of numbers is in ascending order."""

    values: tuple[Any, ...]

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        return trial.suggest_categorical(name, self.values)

    def edge(self, value: Any) -> str | None:
        """Return the end of three or more numbers that a value is at: "lower", "upper" or None."""
        if any(isinstance(each, str) for each in self.values) or len(self.values) < 3 or value == 0:
            return None  # nothing lies below 0
        return {0: "lower", len(self.values) - 1: "upper"}.get(self.values.index(value))

    @property
    def lowest(self) -> Any:
        """The first value."""
        return self.values[0]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def to_json(self) -> Any:
        """Return the values for JSON."""
        return list(self.values)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, on a log scale unless `log` is False; integers if both ends are `int`."""

    low: float
    high: float
    log: bool = True

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def edge(self, value: Any) -> str | None:
        """Return the end of the range that a value is near: "lower", "upper" or None."""
        if self.log:
            position = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            position = (value - self.low) / (self.high - self.low)
        return "lower" if position <= _EDGE and self.low > 0 else "upper" if position >= 1 - _EDGE else None

    @property
    def lowest(self) -> Any:
        """The lower end."""
        return self.low

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def to_json(self) -> Any:
        """Return the range for JSON."""
        return {"low": self.low, "high": self.high, **({} if self.log else {"log": False})}


Dimension = Choice | Range


def is_log(name: str, low: float) -> bool:
    """Return whether the range of an option that begins at `low` has a log scale: not shares, and not from 0."""
    return low > 0 and name not in SHARES
