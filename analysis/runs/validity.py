"""Checks the values of a finished run, so that one bad run is listed and left out instead of ending the analysis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_SEED = 2**53
"""Seeds above this are not exact as floating-point numbers, which is how they are read."""
_MOST = 1e15
"""No measured value of a run is larger; greater values overflow when they are squared."""
_NEVER_NAN = ("train/loss", "test/", "gain/")
"""Prefixes of metrics that describe the result itself: NaN in one of them means that the run went wrong."""


def defects(row: Mapping[str, Any], required: Sequence[str], metrics: Mapping[str, float]) -> list[str]:
    """Return the reasons why a finished run cannot be used; empty if it can.

    Args:
        row: the values of the run by column.
        required: the columns that must have a value.
        metrics: the last value of each metric that the run has logged.
    """
    if missing := [key for key in required if is_missing(row.get(key))]:
        return [f"lacks {', '.join(missing)}"]
    reasons = []
    ratio, seed = float(row["tl_ratio"]), float(row["seed"])
    if not 0 <= ratio <= 1:
        reasons.append(f"has tl_ratio {ratio:g}, which is not between 0 and 1")
    if seed % 1 or abs(seed) > _MOST_SEED:
        reasons.append(f"has seed {seed:g}, which is no whole number")
    for name, value in sorted(metrics.items()):
        if not math.isfinite(value):
            if name.startswith(_NEVER_NAN):
                reasons.append(f"has {name} {value:g}")
        elif is_share(name) and not 0 <= value <= 1:
            reasons.append(f"has {name} {value:g}, which is not between 0 and 1")
        elif abs(value) > _MOST:
            reasons.append(f"has {name} {value:g}, which is no measured value")
    if row.get("bad_digests"):
        reasons.append("has test_digests that are no JSON object")
    return reasons


def is_missing(value: Any) -> bool:
    """Return whether a value is absent, empty or not finite."""
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def is_share(metric: str) -> bool:
    """Return whether a metric is F1 of something, which is between 0 and 1."""
    return metric.endswith("/f1") or metric.startswith(("floor/en/", "floor/tl/"))


def digest_of_english(text: str) -> tuple[str, bool]:
    """Return the digest of the English test items from the param `test_digests`, and whether the param is malformed."""
    try:
        digests = json.loads(text)
    except (ValueError, RecursionError):
        return "", True
    if not isinstance(digests, dict):
        return "", True
    return str(digests.get("en", "")), False
