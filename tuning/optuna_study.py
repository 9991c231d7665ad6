"""Runs the Optuna study of one variant, shared by any number of workers, each of which may die at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import optuna
from optuna import Trial
from optuna.exceptions import TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from tuning.divergence import mark_diverged
from tuning.halving import promotion
from tuning.halving.brackets import Brackets, in_rung, place_of
from tuning.kept_adapters import KeptAdapters
from tuning.retries import (
    ATTEMPTS,
    COUNTED,
    DuplicateTrialError,
    SurplusTrialError,
    check_needed,
    device_seconds,
    enqueue_missing,
    enqueue_retry,
    original_number,
    started_trials,
    times_tried,
)
from tuning.sampler import make_pruner, make_sampler
from tuning.space import describe_point
from tuning.study_config import ROLES, TUNING_SEED, StudyConfig
from tuning.study_run import about, end_interrupted, study_run
from tuning.study_status import PREFIX, RUNGS, STOPS
from whichlora import termination
from whichlora.errors import LostLeaseError, NonFiniteError, PrunedError
from whichlora.masking import masked
from whichlora.parallel import lockstep
from whichlora.run.pipeline import trial as run_trial
from whichlora.scheduling.leases import Leases
from whichlora.scheduling.storage import stored_trial
from whichlora.text_tables import POINTS
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker
from whichlora.training.fit import PruningReports


class Study:
    """A study in the shared database, new or resumed.

    Attributes:
        about: what it tunes, in Markdown.
        problem: the error that made this process give up on the study; None otherwise.
        adapters: which trials keep their adapters.
        brackets: those of a study with rungs; None otherwise.
    """

    def __init__(
        self, config: StudyConfig, tracker: Tracker, database: RDBStorage, *, command: str, keep_adapters: str = "all"
    ) -> None:
        """Open or create the study.

        Args:
            config: the fixed part of the study.
            tracker: tracks the trials, under the study's run.
            database: stores the study.
            command: the command that resumes it, for `status`.
            keep_adapters: the trials of which the adapters are kept, one of `KEEP`.
        """
        self.config, self.name = config, config.name()
        self._optuna = optuna.create_study(
            study_name=PREFIX + self.name,
            storage=database,
            directions=config.objective.directions,
            sampler=make_sampler(self.name, halving=config.rungs.halving),
            pruner=make_pruner(config.pruner, reports=config.reports),
            load_if_exists=True,
        )
        self._leases = Leases(self._optuna, enqueue_retry)
        self._optuna.set_user_attr("command", command)
        self.about = about(config, command)
        self._tracker = replace(tracker, parent=study_run(self._optuna, tracker, self.name, about=self.about))
        self.adapters = KeptAdapters(keep_adapters, self._optuna, self._tracker, self.name, rung=config.rungs.top)
        self._stops_before = self._optuna.user_attrs.get(STOPS, 0)
        self.problem: str | None = None
        self._failures = 0
        known, before = config.tried_first, self.trials()
        self.brackets: Brackets | None = None
        if config.rungs.halving:
            self._optuna.set_user_attr(RUNGS, config.rungs.number)
            self.brackets = Brackets(config.rungs, config.space, known, self.name, TUNING_SEED, len(before))
        for arm, point in known.items():
            if self.brackets is None and not any(t.user_attrs.get("known") == arm for t in before):
                self._optuna.enqueue_trial(point, user_attrs={"known": arm})
        self.adapters.remove_others()

    @property
    def tracker(self) -> Tracker:
        """The tracker of the trials, under the study's run."""
        return self._tracker

    @property
    def run_id(self) -> str:
        """The id of the MLflow run of kind `study`, the parent of the trials' runs."""
        assert self._tracker.parent is not None
        return self._tracker.parent

    @property
    def log(self) -> RunLog:
        """The log of the MLflow run of the study."""
        return RunLog(self._tracker.client, self.run_id)

    @property
    def optuna(self) -> optuna.Study:
        """The Optuna study, to be read only."""
        return self._optuna

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, by default all."""
        return self._leases.trials(*states)

    def counted(self) -> list[FrozenTrial]:
        """Return the trials that count towards the budget: complete and pruned ones, diverged ones included."""
        return self.trials(*COUNTED)

    def on_all_items(self) -> list[FrozenTrial]:
        """Return the counted trials that trained on all items, which are compared; without rungs that is every one."""
        return in_rung(self.counted(), self.config.rungs.top)

    def seconds(self) -> float:
        """Return the device-seconds of all trials, including failed ones."""
        return device_seconds(self.trials())

    def stopped(self) -> bool:
        """Return whether `stop` was called after this process opened the study."""
        return bool(self._optuna.user_attrs.get(STOPS, 0) != self._stops_before)

    def mark_interrupted(self) -> None:
        """Mark the study's run as killed, unless other workers have trials of the study."""
        if not self.trials(TrialState.RUNNING):
            with termination.deferred():
                end_interrupted(self.log, self.about)

    def n_started(self) -> float:
        """Return the number of trials that count, are running, or are to be retried; on fewer items, parts of one."""
        places = map(place_of, started_trials(self.trials()))
        return sum(1 if place is None else self.config.rungs.share(place.rung) for place in places)

    def step(
        self, *, limit: int, allow_new: bool, budget: float | None = None
    ) -> Literal["worked", "waiting", "finished"]:
        """Run one new or retried trial, if the study needs one.

        Args:
            limit: the number of complete and pruned trials at which the study ends; with rungs, what its trials may
                cost in trainings on all items.
            allow_new: whether new trials may start; retries may in any case.
            budget: device-seconds that a further bracket must fit into.

        Returns:
            "worked" after a trial, "waiting" if only other workers have trials left, "finished" if this process has
            nothing left to do.
        """
        self._leases.release_dead()
        enqueue_missing(self._optuna, self.trials())
        if self.problem is not None:  # every trial fails in this process, but perhaps not in others
            return "finished"
        new = allow_new and not self.stopped()
        retries = [t for t in self.trials(TrialState.WAITING) if original_number(t) != t.number]
        if retries or (new and self._has_new(limit, budget)):
            self._optuna.optimize(
                lambda trial: self._run_trial(trial, limit, retries_only=not new),
                n_trials=1,
                catch=(Exception,),
                gc_after_trial=True,  # an exception keeps its model alive while the next trial loads another
            )
            self.adapters.remove_others()
            return "worked"
        return "waiting" if self.trials(TrialState.RUNNING) else "finished"

    def _has_new(self, limit: int, budget: float | None) -> bool:
        """Return whether a new trial may start; with rungs, enqueue those that are needed now."""
        if self.brackets is None:
            return self.n_started() < limit
        fits, seconds = self.config.rungs.fits, self.seconds()
        for entry in self.brackets.missing(self.trials(), may_begin=lambda n: fits(n, limit, budget, seconds)):
            self._optuna.enqueue_trial(entry.point, user_attrs=entry.attributes)
        return bool(self.trials(TrialState.WAITING))

    def _run_trial(self, trial: Trial, limit: int, *, retries_only: bool) -> Any:
        """Train and validate one trial and return its objective values."""
        check_lease = self._leases.acquire(trial)
        frozen = stored_trial(self._optuna, trial)
        number = original_number(frozen)
        start, earlier_seconds = lockstep.busy_seconds(), float(trial.user_attrs.get("seconds", 0.0))

        def store_seconds() -> None:
            trial.set_user_attr("seconds", earlier_seconds + lockstep.busy_seconds() - start)

        place, tags = place_of(frozen), {"study": self.name, "trial": str(number)}
        rung, objective = self.config.rungs.top if place is None else place.rung, self.config.objective
        try:
            if self.brackets is not None and place is None:
                raise SurplusTrialError("other workers have begun the last trials of the rung")
            check_needed(frozen, self.trials(), limit, retries_only=retries_only)
            point = self.config.space.suggest(trial)
            if "seed" not in trial.user_attrs:
                trial.set_user_attr("seed", TUNING_SEED + times_tried(point, number, self.trials()))
            plan = self.config.plan(point, trial.user_attrs["seed"], rung=rung)
            result = run_trial(
                plan,
                replace(self._tracker, check_lease=check_lease),
                tags=tags,
                reports=self._pruning_reports(trial, store_seconds),
                keep=lambda metrics: self.adapters.wanted(trial.number, objective.values(metrics), rung),
            )
            values = objective.values(result.metrics)
            scores = [f"validation/{role}/{objective.metric}" for role in ROLES["mean"]]
            kept = {"run_id": result.run_id} | {n: result.metrics[n] for n in scores if n in result.metrics}
            if place is not None:
                kept |= promotion.attributes(plan, ROLES[objective.f1], values[0], result.metrics)
            for name, value in kept.items():
                trial.set_user_attr(name, value)
            store_seconds()
            self._failures = 0
            items = "" if place is None else f" on {plan.spec.train_size} items"
            self._print(trial, f"{objective.score_text(result.metrics)}{items} with {describe_point(point)}")
            return values
        except LostLeaseError:
            raise
        except PrunedError as pruned:
            self._failures = 0
            store_seconds()
            self._store_run_id(trial, tags)
            self._print(trial, f"pruned {pruned}")
            raise TrialPruned(str(pruned)) from pruned
        except NonFiniteError as error:
            self._failures = 0
            store_seconds()
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
            self._store_run_id(trial, tags)
            mark_diverged(trial)
            self._print(trial, f"diverged, counted with F1 0: {error}")
            return self.config.objective.worst
        except SurplusTrialError as error:
            trial.set_user_attr("error", str(error))
            # Known points are always tried; those of a rung are enqueued again when they are missing.
            if place is None and not isinstance(error, DuplicateTrialError) and "known" in trial.user_attrs:
                self._optuna.enqueue_trial(frozen.system_attrs["fixed_params"], {"known": trial.user_attrs["known"]})
            raise
        except Exception as error:
            store_seconds()
            trial.set_user_attr("error", masked(f"{type(error).__name__}: {error}")[:1000])
            self._store_run_id(trial, tags)
            n_raised = trial.user_attrs.get("raised", 0) + 1
            trial.set_user_attr("raised", n_raised)
            self._failures += 1
            if self._failures >= 2 * ATTEMPTS:
                self.problem = masked(f"{type(error).__name__}: {error}")
            if n_raised < ATTEMPTS:
                enqueue_retry(self._optuna, stored_trial(self._optuna, trial))
            raise
        except KeyboardInterrupt:  # neither an error nor a death of the trial's own
            with termination.deferred():
                check_lease()
                store_seconds()
                trial.set_user_attr("interrupted", trial.user_attrs.get("interrupted", 0) + 1)
                enqueue_retry(self._optuna, stored_trial(self._optuna, trial))
            raise

    def _pruning_reports(self, trial: Trial, store_seconds: Callable[[], None]) -> PruningReports | None:
        """Return the reports for the pruner; with two objectives they only make the run score the languages."""
        roles = ROLES[self.config.objective.f1]
        if self.config.objective.cost is not None:
            return PruningReports(roles=roles, times=1, report=lambda number, value: None)

        def report(number: int, value: float) -> None:
            reported = stored_trial(self._optuna, trial).intermediate_values
            if number not in reported:  # else an earlier attempt has reported it
                trial.report(value, number)
            store_seconds()
            if number < self.config.reports and trial.should_prune():  # after the last report pruning saves nothing
                raise PrunedError(f"after report {number} with F1 {POINTS.text(value)}")

        save_pruned = self.adapters.wanted(trial.number, None, 0)
        return PruningReports(roles=roles, times=self.config.reports, report=report, save_pruned=save_pruned)

    def _print(self, trial: Trial, outcome: str) -> None:
        print(f"{self.config.variant.name} trial {trial.number}: {outcome}", flush=True)

    def _store_run_id(self, trial: Trial, tags: Mapping[str, str]) -> None:
        """Store the id of the trial's MLflow run, if the run exists."""
        for state in ("FINISHED", "FAILED"):
            run = self._tracker.find("trial", status=state, **tags)
            if run is not None:
                trial.set_user_attr("run_id", run.info.run_id)
                return
