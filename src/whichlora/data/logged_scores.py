"""Reads from the metrics of a run what belongs to a score: its interval, the best shallow baseline, and languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CONTROLS = ("control_f1", "adjusted_f1")
"""The scores beside F1 of tasks whose answers are choices of each item: of the choices alone, and adjusted for them."""


def interval_of(metrics: Mapping[str, float], key: str) -> tuple[float, float] | None:
    """Return the ends of the interval of the metric `key`; None if they are not logged."""
    low, high = (metrics.get(f"{key}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def controls_of(metrics: Mapping[str, float], test_set: str) -> tuple[str, ...]:
    """Return which of `CONTROLS` a run has logged for a test set."""
    return tuple(key for key in CONTROLS if {f"test/{test_set}/{key}", f"base/{test_set}/{key}"} <= metrics.keys())


def best_floor(metrics: Mapping[str, float], test_set: str) -> tuple[str, float] | None:
    """Return the name and the score of the best shallow baseline on a test set, such as `tl`; None if there is none."""
    prefix = f"floor/{test_set}/"
    floors = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    return max(floors.items(), key=lambda floor: floor[1], default=None)


def scores_by_language(
    metrics: Mapping[str, float], prefix: str, metric: str, languages: Iterable[str]
) -> dict[str, float]:
    """Return the scores of a test set by language, where it is in several; `prefix` is such as `test/tl`."""
    keys = {code: f"{prefix}/{code}/{metric}" for code in languages}
    return {code: metrics[key] for code, key in keys.items() if key in metrics}
