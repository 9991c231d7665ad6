"""Proposes the points of a bracket from the results of earlier brackets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from tuning.space import Space

ENOUGH = 10
"""Number of results of a rung from which TPE proposes points: fewer than this tell it little in five dimensions."""
_ASKED = 10
"""Points asked for per point wanted, at most, to avoid repeated ones."""


def propose(
    space: Space, history: Sequence[FrozenTrial], count: int, *, seed: str, tried: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return `count` points that depend on nothing but the arguments.

    They come from TPE (Watanabe 2023, arXiv 2304.11127), which takes each proposal for a bad result until all are made,
    so that they spread (constant liar); at random if there is no history. Points that were tried are avoided, unless a
    space of few points has no others.

    Args:
        history: complete trials of one rung.
        seed: any text.
        tried: points to avoid.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])
    sampler: BaseSampler = RandomSampler(seed=number)
    if history:
        sampler = TPESampler(seed=number, n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(history)
    new: list[dict[str, Any]] = []
    repeated: list[dict[str, Any]] = []
    for _ in range(_ASKED * count):
        if len(new) == count:
            break
        point = space.suggest(study.ask())
        (repeated if point in tried or point in new else new).append(point)
    return [*new, *repeated][:count]
