"""The dimensions of a search space: lists of values and ranges of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_EDGE = 0.02
"""An optimum within this fraction of a range's width, on the log scale, counts as on its edge."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A list of values; numbers are in ascending order."""

    values: tuple[Any, ...]

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        return trial.suggest_categorical(name, self.values)

    def edge(self, value: Any) -> str | None:
        """Return the end of three or more numbers that a value is at: "lower", "upper" or None."""
        if isinstance(value, str) or len(self.values) < 3:
            return None
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
    """Numbers from `low` to `high` on a log scale; integers if both ends are `int`."""

    low: float
    high: float

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=True)
        return trial.suggest_float(name, self.low, self.high, log=True)

    def edge(self, value: Any) -> str | None:
        """Return the end of the range that a value is near: "lower", "upper" or None."""
        position = math.log(value / self.low) / math.log(self.high / self.low)
        return "lower" if position <= _EDGE else "upper" if position >= 1 - _EDGE else None

    @property
    def lowest(self) -> Any:
        """The lower end."""
        return self.low

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def to_json(self) -> Any:
        """Return the range for JSON."""
        return {"low": self.low, "high": self.high}


Dimension = Choice | Range
