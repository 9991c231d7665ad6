"""Which points of a rung rise to the next one: results of the same rung only are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from optuna.trial import FrozenTrial

from tuning.divergence import diverged
from whichlora.config.plan import Plan

LEARNED, LOSS = "learned", "train/final_loss"
"""User attributes of a trial: whether it learned something, and the mean loss at the end of its training."""


def chance_level(plan: Plan, roles: Sequence[str]) -> float:
    """Return the mean score of `roles` up to which a trial is not shown to have learned anything.

    It is the best shallow baseline, plus two standard errors of a score with as many validation items.
    """
    items = {role: plan.mixture.validation[role] for role in roles}
    baselines = [plan.task.shallow_baselines(plan.mixture.train, items[role]) for role in roles]
    floor = mean(max(found.values(), default=0.0) for found in baselines)
    return floor + 2 * math.sqrt(floor * (1 - floor) / sum(map(len, items.values())))


def attributes(plan: Plan, roles: Sequence[str], value: float, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return the user attributes of a complete trial that `ranked` needs, from its score in `roles` and its metrics."""
    loss = {LOSS: metrics[LOSS]} if LOSS in metrics else {}
    return {LEARNED: value > chance_level(plan, roles), **loss}


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials of a rung, the best first.

    Those that learned something are ranked by their score. Scores at chance level are noise, so the others, below
    them, are ranked by their training loss, which falls before the score rises. Those that diverged are last.
    """

    def key(trial: FrozenTrial) -> tuple[float, ...]:
        loss = float(trial.user_attrs.get(LOSS, math.inf))
        if diverged(trial):
            return (2,)
        value = float(trial.values[0])
        return (0, -value, loss) if trial.user_attrs.get(LEARNED, True) else (1, loss, -value)

    return sorted(trials, key=key)
