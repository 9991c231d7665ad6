"""Tells how far a study is, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tuning.divergence import converged
from tuning.halving.brackets import in_rung
from tuning.optuna_study import Study
from tuning.study_config import TUNING_SEED, StudyConfig
from whichlora.config.cli import format_duration
from whichlora.run.durations import Durations


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The trials of a study, before they are run.

    Attributes:
        variant: its name.
        trainings: training items and number of trials of each rung, the lowest first; empty if only a budget limits
            their number, and no known run tells how many trials it suffices for.
        seconds: device-seconds of training, without pruning; None if no known run tells.
        budget: device-seconds of trials after which no new ones start; None for no limit.
    """

    variant: str
    trainings: Sequence[tuple[int, int]]
    seconds: float | None
    budget: float | None

    @property
    def text(self) -> str:
        """One line: trials by rung, and the time; without a known time, when their number will be known."""
        if not self.trainings:
            known = "how many is known once a run with this model and task has finished on this machine"
            return f"{self.variant}: as many trials as fit in {self.budget:.0f} s; {known}"
        trials = ", ".join(f"{count} on {items} items" for items, count in self.trainings)
        time = "" if self.seconds is None else f", about {format_duration(self.seconds)} of training"
        limit = "" if self.budget is None else f", at most {self.budget:.0f} s of trials"
        return f"{self.variant}: trials: {trials}{time}{limit}"


def forecast(config: StudyConfig, durations: Durations | None, *, trials: int, budget: float | None = None) -> Forecast:
    """Return the trials of a new study and how long they take.

    Args:
        config: the fixed part of the study.
        durations: those of finished runs; None if there are none.
        trials: the number of trials; with rungs, what they may cost in trainings on all items.
        budget: device-seconds of trials; None for no limit.
    """
    rungs, variant = config.rungs, config.variant.name
    seconds = None if durations is None else durations.training(config.plan(config.example, TUNING_SEED))
    if budget is not None:
        if seconds is None:
            return Forecast(variant=variant, trainings=[], seconds=None, budget=budget)
        trials = min(trials, max(1, int(budget / seconds)))
    brackets = max(1, rungs.brackets(trials)) if rungs.halving else trials
    known = len(config.tried_first)
    counts = [brackets * rungs.points(rung) + (known if rung else 0) for rung in range(rungs.number)]
    trainings = [(rungs.items(config.train_size, rung), count) for rung, count in enumerate(counts)]
    cost = sum(count * rungs.share(rung) for rung, count in enumerate(counts))
    expected = None if seconds is None else cost * seconds
    return Forecast(variant=variant, trainings=trainings, seconds=expected, budget=budget)


def progress(study: Study, trials: int, budget: float | None) -> str:
    """Return a progress line: what was done of `trials` and the time left, or device-seconds of `budget`."""
    rungs, counted = study.config.rungs, study.counted()
    by_rung = "/".join(str(len(in_rung(counted, rung))) for rung in range(rungs.number))
    if budget is not None:
        detail = f", {by_rung} trials by rung" if rungs.halving else ""
        return f"{study.name}: {study.seconds():.0f} of {budget:.0f} s of trials{detail}"
    if not rungs.halving:
        return f"{study.name}: {len(counted)} of {trials} trials{time_left(study, trials - len(counted))}"
    cost = sum(rungs.share(rung) * len(in_rung(counted, rung)) for rung in range(rungs.number))
    left = (trials - cost) // rungs.number * rungs.number  # brackets are whole
    remaining = f", about {format_duration(study.seconds() / cost * left)} left" if cost and left > 0 else ""
    return f"{study.name}: cost of {cost:.1f} of {trials} trainings, {by_rung} trials by rung{remaining}"


def time_left(study: Study, trainings: int) -> str:
    """Format the time that one worker needs for more trainings on all items, as the end of a progress line.

    It comes from the median of the complete trials that did not diverge; empty without any, or if none is left.
    """
    seconds = [trial.user_attrs["seconds"] for trial in converged(in_rung(study.trials(), study.config.rungs.top))]
    return f", about {format_duration(median(seconds) * trainings)} left" if seconds and trainings > 0 else ""
