"""Keeps the adapters of a study's trials: of all, of the best complete trial, or of none (option `keep_adapters`).

An adapter is removed only when its trial's end is stored and another trial with an adapter is better, which then
remains so. Neither a killed worker nor several at once can therefore remove the last adapter of the best trial.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

import optuna
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

from tuning.divergence import converged
from tuning.halving.brackets import in_rung
from tuning.retries import original_number
from whichlora.errors import in_a_line
from whichlora.tracking.client import experiment_id, search_all
from whichlora.tracking.model_files import ADAPTER
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker


class KeptAdapters:
    """Decides which trials of a study log their adapters, and removes those that are not kept."""

    def __init__(self, keep: str, study: optuna.Study, tracker: Tracker, name: str, *, rung: int = 0) -> None:
        """Store the option `keep_adapters`, the study, the tracker of its trials, its name and its top rung."""
        self.keep, self._rung = keep, rung
        self._study, self._tracker, self._name = study, tracker, name
        self._warned = False

    def wanted(self, number: int, values: Sequence[float] | None, rung: int) -> bool:
        """Return whether to log the adapter of trial `number` of a rung, with these values; None if it was pruned."""
        if self.keep != "best" or values is None or rung != self._rung:
            return self.keep == "all"
        if len(values) > 1:
            return True  # it may extend the Pareto front
        return all((values[0], -number) > (t.values[0], -t.number) for t in self._best(self._with_adapter()))

    def remove_others(self) -> None:
        """Remove the adapters that are not to be kept, also those of an earlier call with another option.

        Trials that run, or are to be retried, keep theirs.
        """
        if self.keep != "all":
            try:
                self._remove_others()
            except Exception as error:  # such as a server that does not answer: the trials are what matters
                self._warn(error)

    def _remove_others(self) -> None:
        runs = list(self._with_adapter())  # before the trials, so that none of them is unknown there
        decided = {str(original_number(t)) for t in self._trials(TrialState.COMPLETE, TrialState.PRUNED)}
        kept = {str(original_number(t)) for t in self._best(runs)} if self.keep == "best" else set()
        for run in runs:
            trial = run.data.tags["whichlora.trial"]
            if trial not in kept and (trial in decided or not trial.isdecimal()):
                self._remove(run)

    def _best(self, runs: Iterator[Run] | Sequence[Run]) -> list[FrozenTrial]:
        """Return the best complete trial of those with an adapter; with two objectives, their Pareto front."""
        numbers = {run.data.tags["whichlora.trial"] for run in runs}
        if len(self._study.directions) > 1:
            return [trial for trial in self._study.best_trials if str(original_number(trial)) in numbers]
        trials = in_rung(converged(self._trials(TrialState.COMPLETE)), self._rung)
        candidates = [trial for trial in trials if str(original_number(trial)) in numbers]
        return sorted(candidates, key=lambda trial: (-trial.values[0], trial.number))[:1]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _with_adapter(self) -> Iterator[Run]:
        """Yield the finished runs of the study's trials, and of its points with fresh seeds, that have an adapter."""
        client = self._tracker.client
        conditions = ["attributes.status = 'FINISHED'", "tags.`whichlora.kind` = 'trial'"]
        conditions += [f"tags.`whichlora.study` = '{self._name}'", "tags.`whichlora.adapter` = 'logged'"]
        experiment = experiment_id(client, self._tracker.experiment)
        return search_all(client.search_runs, [experiment], " and ".join(conditions))

    def _remove(self, run: Run) -> None:
        """Remove the adapter of a run and then its tag, so that a killed removal is repeated."""
        RunLog(self._tracker.client, run.info.run_id).delete_artifacts(ADAPTER)
        with contextlib.suppress(MlflowException):  # another worker has removed it
            self._tracker.client.delete_tag(run.info.run_id, "whichlora.adapter")

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            print(f"warning: adapters were not removed: {in_a_line(error)}", file=sys.stderr)
        self._warned = True
