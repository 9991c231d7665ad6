"""Tunes variants for other commands, and returns the settings that it chose with what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning import report
from tuning.finalists import Finalist, finalists
from tuning.pipeline import open_studies, tune
from tuning.study_config import StudyConfig
from whichlora.config.plan import Plan
from whichlora.tracking.runs import Tracker

MOST_TRIALS = 10**6
"""Trials of a study that only a budget limits."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings that a study has chosen for a variant, and what they rest on.

    Attributes:
        config: the fixed part of the study.
        study: its name.
        run_id: its run in MLflow.
        finalists: the points that were trained again with fresh seeds, with their scores.
        best: the finalist with the best mean over the fresh seeds; None if scores are missing or all diverged.
        seconds: device-seconds of the trials.
        missing: what is missing, if anything, a message each.
    """

    config: StudyConfig
    study: str
    run_id: str
    finalists: Sequence[Finalist]
    best: Finalist | None
    seconds: float
    missing: Sequence[str]

    @property
    def arm(self) -> dict[str, Any] | None:
        """The best point as an arm of an experiment's file, with its source; None without one."""
        return None if self.best is None else report.arm(self.config, self.study, self.best)

    @property
    def undecided(self) -> dict[str, str]:
        """Which edge of the space the best point is on, "lower" or "upper", by dimension."""
        return {} if self.best is None or self.best.recommended else self.config.space.edges(self.best.point)

    @property
    def fresh_seconds(self) -> float:
        """Seconds of the trainings with fresh seeds."""
        return sum(finalist.seconds for finalist in self.finalists)

    def plan(self, seed: int) -> Plan:
        """Return the plan of a run of the best point with a seed.

        Raises:
            ValueError: there is no best point.
        """
        if self.best is None:
            raise ValueError(f"{self.study} has no best point")
        return self.best.plan(self.config, seed)


def tune_variants(
    configs: Sequence[StudyConfig],
    tracker: Tracker,
    *,
    command: str,
    trials: int | None = None,
    budget: float | None = None,
    deadline: float | None = None,
    pack: int = 1,
    keep_adapters: str = "all",
) -> list[Tuned]:
    """Open or resume studies, tune in this process together with any others, and return the settings chosen.

    Every variant gets the same number of trials, or the same device-seconds: of two studies, the one that has used less
    goes first. Safe to repeat: finished trials are reused. With `trials` alone the result of a killed and resumed call
    is that of an uninterrupted one; a budget in seconds ends after as many trials as fit.

    Args:
        configs: the fixed part of each study, such as `tuning.tune.study_configs` returns.
        tracker: of the MLflow experiment that gets the runs.
        command: the command that resumes them.
        trials: complete and pruned trials of each study; with rungs, their cost in trainings on all items. None for no
            limit besides the budget.
        budget: device-seconds of the trials of each study, without those of the trainings with fresh seeds.
        deadline: no new trial starts after it, as in `time.monotonic`.
        pack: number of trials to train at once.
        keep_adapters: the trials of which the adapters are kept, one of `KEEP`.

    Raises:
        OptionError: a study has no valid runs.
        ValueError: neither trials nor a budget are given.
    """
    if trials is None and budget is None:
        raise ValueError("trials or budget must be given")
    for config in configs:
        config.check()
    studies = open_studies(configs, tracker, command=command, keep_adapters=keep_adapters)
    _, missing = tune(studies, tracker, trials=trials or MOST_TRIALS, budget=budget, deadline=deadline, pack=pack)
    tuned = []
    for study in studies:
        scored = finalists(study)
        tuned.append(
            Tuned(
                config=study.config,
                study=study.name,
                run_id=study.run_id,
                finalists=scored,
                best=report.winner(scored),
                seconds=study.seconds(),
                missing=[message for message in missing if message.startswith(f"{study.name}: ")],
            )
        )
    return tuned
