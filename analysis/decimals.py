"""Prints numbers with a fixed number of decimals."""

from __future__ import annotations

ROUNDING = 1e-9
"""Smaller values are zero but for rounding errors."""


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """Format a number with a fixed number of decimals, zero without a minus; `sign` adds a plus to other numbers."""
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def interval(low: float, high: float, decimals: int = 1) -> str:
    """Format an interval as "low to high", with more decimals where an end would print as 0 and hide its sign."""
    most = decimals + 2
    while decimals < most and any(abs(end) > ROUNDING and not fixed(end, decimals).strip("0.") for end in (low, high)):
        decimals += 1
    return f"{fixed(low, decimals)} to {fixed(high, decimals)}"
