"""How a study proposes and stops trials, so that a resumed study proposes what an uninterrupted one would."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler, TPESampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, TrialState

_STARTUP = 5
"""Trials that are drawn at random, or from the known points, before TPE and the median say anything."""


class TrialSampler(BaseSampler):
    """TPE (Watanabe 2023, arXiv 2304.11127) whose random numbers depend on study, trial and parameter alone.

    Optuna does not store a sampler. One that were seeded and then drawn from would start anew in each process and
    propose the same trials again.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed

    def _of(self, trial: FrozenTrial, name: str = "") -> TPESampler:
        digest = hashlib.sha256(f"{self._seed}/{trial.number}/{name}".encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4]), n_startup_trials=_STARTUP, constant_liar=True)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are proposed together."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose the parameters that go together."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Propose one parameter."""
        return self._of(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Note what TPE keeps of a trial with several objectives."""
        self._of(trial).after_trial(study, trial, state, values)


def pruner_of(name: str, *, reports: int) -> BasePruner:
    """Return the pruner called `name` for trials of so many reports.

    A report is one of a share of the run, not of a number of steps: else trials of fewer epochs, whose learning rate
    has come down by then, would be held against longer ones.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=reports)
    return optuna.pruners.NopPruner()
