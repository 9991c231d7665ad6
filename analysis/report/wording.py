"""Words and number formats that the report's sentences share."""

from __future__ import annotations

from collections.abc import Sequence

ALPHA = 0.05


def format_points(margin: float) -> str:
    """Format a number of F1 points."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def join(names: Sequence[str], conjunction: str = "and") -> str:
    """Return "A, B and C", or "A, rank 8; B; and C" if a name has a comma."""
    if len(names) == 1:
        return names[0]
    if any("," in name for name in names):
        return f"{'; '.join(names[:-1])}; {conjunction} {names[-1]}"
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"


def count(number: int, what: str) -> str:
    """Return "1 run" or "2 runs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
