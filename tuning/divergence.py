"""Counts a diverged training as tried, with the worst value, and keeps it from ever being the best one.

A trial of which a loss, a gradient or a score is not finite ends COMPLETE, with the worst values, and violates Optuna's
constraint `finite`. TPE ranks such trials below all others, with one objective and with two, and Optuna neither returns
them as the best trial nor puts them on the Pareto front. As a failed trial it would teach the sampler nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from whichlora.errors import NonFiniteError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna import Trial
    from optuna.trial import FrozenTrial

WORST_F1, WORST_COST = 0.0, float("inf")
_CONSTRAINT = "finite"


def mark_diverged(trial: Trial) -> None:
    """Mark a running trial as diverged."""
    trial.set_constraint(_CONSTRAINT, 1.0)


def diverged(trial: FrozenTrial) -> bool:
    """Return whether the training of a complete trial diverged."""
    return any(value > 0 for value in trial.constraints.values())


def converged(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials that did not diverge."""
    return [trial for trial in trials if trial.state.name == "COMPLETE" and not diverged(trial)]


def run_diverged(run: Run | None) -> bool:
    """Return whether a failed run of kind `trial` ended because a number was not finite."""
    return run is not None and run.data.tags.get("whichlora.error", "").startswith(f"{NonFiniteError.__name__}:")
