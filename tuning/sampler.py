"""Samples and prunes trials so that a resumed study proposes the same points as an uninterrupted one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

_STARTUP = 5
"""Number of trials with known or random points before TPE and the median pruner take effect."""


class TrialSampler(BaseSampler):
    """TPE (Watanabe 2023, arXiv 2304.11127) whose random numbers depend only on study, trial and parameter.

    Optuna does not store samplers. A sampler with one seed would start over in each process and propose the same points
    again.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed

    def _tpe(self, trial: FrozenTrial, name: str = "") -> TPESampler:
        """Return a TPE sampler seeded for a trial and, for independent sampling, a parameter."""
        digest = hashlib.sha256(f"{self._seed}/{trial.number}/{name}".encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4]), n_startup_trials=_STARTUP, constant_liar=True)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are sampled jointly."""
        return self._tpe(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample the joint parameters."""
        return self._tpe(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter on its own."""
        return self._tpe(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Notify TPE of the end of a trial."""
        self._tpe(trial).after_trial(study, trial, state, values)


def make_sampler(seed: str, *, halving: bool) -> BaseSampler:
    """Return the sampler of a study; with successive halving, points are not sampled but enqueued."""
    return RandomSampler() if halving else TrialSampler(seed)


def make_pruner(name: str, *, reports: int) -> BasePruner:
    """Return the pruner called `name` for trials that report `reports` times.

    Trials report after equal shares of a run, not after fixed numbers of steps: otherwise trials with fewer epochs,
    whose learning rate has already decayed, would be compared with longer ones at an earlier stage.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=reports)
    return optuna.pruners.NopPruner()
