"""What a comparison has cost so far, and what its next rounds are expected to cost."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from comparing.comparison import Comparison
from comparing.results import Results, diverged
from whichlora.run.durations import Durations, known_durations


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Device-seconds of a comparison.

    A run belongs to the comparison that started it, whose run in MLflow is its parent. Other runs of its rounds were
    there already and cost nothing.

    Attributes:
        spent: of tuning and of the comparison's own runs, failed ones included.
        tuning: of tuning alone, whoever did it.
        runs, reused: number of runs that count, and of those that another command has started.
        budget: device-seconds; None without a limit.
        round: expected for the next round; None if no such run has finished on this machine.
        grid: expected for all methods with all seeds, which are `grid_runs` runs.
    """

    spent: float
    tuning: float
    runs: int
    reused: int
    budget: float | None
    round: float | None
    grid: float | None
    grid_runs: int

    @property
    def affordable(self) -> int | None:
        """Number of further rounds that the rest of the budget pays for; None if it is not known or not limited."""
        if self.budget is None or not self.round:
            return None
        return max(0, math.floor((self.budget - self.spent) / self.round + 1e-9))

    @property
    def exhausted(self) -> bool:
        """Whether the rest of the budget does not pay for the next round."""
        return self.budget is not None and (self.spent >= self.budget or self.affordable == 0)


def costs(
    results: Results, client: MlflowClient | None, parent: str | None, budget: float | None, methods: Collection[str]
) -> Costs:
    """Return what a comparison costs.

    Args:
        parent: id of the comparison's run in MLflow; None before there is one.
        methods: those of the next round.
    """
    comparison = results.comparison
    counted = [run for run in results.runs.values() if not diverged(run)]
    durations = Durations.of(counted)
    if client is not None and durations.total([]) is None:
        durations = known_durations(client, next(iter(comparison.plans(comparison.rule.rounds[0]).values()))[0])
    own = [run for run in results.every if parent and run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent]
    usual = median(durations.others) if durations.others else 0.0
    return Costs(
        spent=comparison.tuning_seconds + sum(_seconds(run, usual) for run in own),
        tuning=comparison.tuning_seconds,
        runs=len(results.runs),
        reused=sum(run.data.tags.get(MLFLOW_PARENT_RUN_ID) != parent or not parent for run in results.runs.values()),
        budget=budget,
        round=_round(comparison, durations, methods),
        grid=_grid(comparison, durations),
        grid_runs=len(comparison.cells) * comparison.rule.max_seeds,
    )


def _round(comparison: Comparison, durations: Durations, methods: Collection[str]) -> float | None:
    plans = comparison.plans(comparison.rule.rounds[0], methods)
    return durations.total(plan for of_method in plans.values() for plan in of_method)


def _grid(comparison: Comparison, durations: Durations) -> float | None:
    one = _round(comparison, durations, comparison.methods)
    return None if one is None else one * comparison.rule.max_seeds


def _seconds(run: Run, usual: float) -> float:
    """Return the device-seconds of a run that has ended.

    The time of a resumed run may include a pause, so it is that of its training and of what else a run takes; that of a
    packed run is its share.
    """
    if not run.info.end_time:
        return 0.0
    seconds = max(0.0, (run.info.end_time - run.info.start_time) / 1000)
    if "whichlora.resumed" in run.data.tags and "train/seconds" in run.data.metrics:
        seconds = min(seconds, run.data.metrics["train/seconds"] + usual)
    return float(seconds / max(1.0, run.data.metrics.get("train/packed", 1.0)))
