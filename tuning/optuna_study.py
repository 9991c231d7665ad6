"""One Optuna study of one variant, shared by any number of workers that may die."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, Literal

import optuna
from optuna import Trial
from optuna.exceptions import TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from tuning.retries import ATTEMPTS, COUNTED, enqueue_again, history, needed, root
from tuning.sampler import TrialSampler, pruner_of
from tuning.space import describe_point
from tuning.study_config import ROLES, TUNING_SEED, StudyConfig
from tuning.study_status import PREFIX
from whichlora.config.cli import duration
from whichlora.errors import LostClaimError, PrunedError
from whichlora.parallel import lockstep
from whichlora.run.pipeline import trial as run_trial
from whichlora.scheduling.leases import Leases
from whichlora.tracking.client import experiment_id
from whichlora.tracking.runs import Tracker
from whichlora.training.fit import PruningReports


class SurplusError(RuntimeError):
    """A trial that need not be: others have begun as many as there are to be."""


class TwiceError(SurplusError):
    """A trial that another one has taken the place of."""


class Study:
    """A study in the shared database, opened or gone on with."""

    def __init__(self, setting: StudyConfig, tracker: Tracker, database: RDBStorage, *, command: str) -> None:
        """Open the study of a setting.

        Args:
            tracker: writes trials, under the study's own run.
            command: what resumes it, for `status`.
        """
        self.setting, self.name = setting, setting.name()
        self._optuna = optuna.create_study(
            study_name=PREFIX + self.name,
            storage=database,
            directions=setting.objective.directions,
            sampler=TrialSampler(self.name),
            pruner=pruner_of(setting.pruner, reports=setting.reports),
            load_if_exists=True,
        )
        self._claims = Leases(self._optuna, enqueue_again)
        self._optuna.set_user_attr("command", command)
        self._tracker = replace(tracker, parent=self._parent(tracker))
        self._opened = time.time()
        self.problem: str | None = None
        self._failures = 0
        for arm, point in setting.known_points.items():
            if point in setting.space and not any(t.user_attrs.get("known") == arm for t in self.trials()):
                self._optuna.enqueue_trial(point, user_attrs={"known": arm})

    @property
    def tracker(self) -> Tracker:
        """Return what writes trials under the study's run."""
        return self._tracker

    @property
    def run_id(self) -> str:
        """Return the MLflow run of kind `study`, under which the trials are."""
        assert self._tracker.parent is not None
        return self._tracker.parent

    @property
    def optuna(self) -> optuna.Study:
        """Return Optuna's study, to read."""
        return self._optuna

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all."""
        return self._claims.trials(*states)

    def counted(self) -> list[FrozenTrial]:
        """Return the trials that count towards the budget: the complete and the pruned ones."""
        return self.trials(*COUNTED)

    def seconds(self) -> float:
        """Return the device-seconds that all trials have taken, the failed ones' included."""
        trials = self.trials()
        followed = {n for t in trials for n in history(t)}  # whose seconds are in those of the trial that went on
        return float(sum(t.user_attrs.get("seconds", 0.0) for t in trials if t.number not in followed))

    def far(self, trials: int, budget: float | None) -> str:
        """Return how far the study is, of so many trials or device-seconds, and how long the rest should take."""
        if budget is not None:
            return f"{self.name}: {self.seconds():.0f} s of {budget:.0f} s"
        count = len(self.counted())
        return f"{self.name}: {count} trials of {trials}{self.work(trials - count)}"

    def work(self, trainings: int) -> str:
        """Return how long so many trainings should take, by the median complete trial; "" if there is none."""
        known = [t.user_attrs["seconds"] for t in self.trials(TrialState.COMPLETE)]
        return f", about {duration(median(known) * trainings)} of work left" if known and trainings > 0 else ""

    def stopped(self) -> bool:
        """Whether `stop` was called since this process opened the study."""
        return bool(self._optuna.user_attrs.get("stopped", 0.0) > self._opened)

    def begun(self) -> int:
        """Return how many trials count, are being made, or wait to be gone on with."""
        return len(needed(self.trials()))

    def step(self, *, limit: int, open_for_new: bool) -> Literal["worked", "waiting", "finished"]:
        """Do one trial, if there is one to do; "waiting" says that only others are at work.

        Args:
            limit: how many complete and pruned trials there are to be.
            open_for_new: whether new trials may begin; those of dead workers are finished in any case.
        """
        self._claims.release_dead()
        self._retry_orphans()
        if self.problem is not None:  # this process fails whatever it is given; another may not
            return "finished"
        new = open_for_new and not self.stopped()
        retries = [t for t in self.trials(TrialState.WAITING) if root(t) != t.number]
        if retries or (new and self.begun() < limit):
            self._optuna.optimize(
                lambda trial: self._do(trial, limit, retries_only=not new),
                n_trials=1,
                catch=(Exception,),
                gc_after_trial=True,  # what a trial raises holds its model, and the next would load another
            )
            return "worked"
        return "waiting" if self.trials(TrialState.RUNNING) else "finished"

    def _do(self, trial: Trial, limit: int, *, retries_only: bool) -> Any:
        check = self._claims.take(trial)
        frozen = self._frozen(trial)
        number = root(frozen)
        began, before = lockstep.busy_seconds(), float(trial.user_attrs.get("seconds", 0.0))

        def spent() -> None:
            trial.set_user_attr("seconds", before + lockstep.busy_seconds() - began)

        tags = {"study": self.name, "trial": str(number)}
        try:
            self._check_needed(frozen, limit, retries_only=retries_only)
            point = self.setting.space.suggest(trial)
            if "seed" not in trial.user_attrs:
                trial.set_user_attr("seed", TUNING_SEED + self._earlier(point, number))
            plan = self.setting.plan(point, trial.user_attrs["seed"])
            found = run_trial(plan, replace(self._tracker, claim=check), tags=tags, reports=self._reports(trial, spent))
            values = self.setting.objective.values(found.metrics)
            trial.set_user_attr("run_id", found.run_id)
            for role in ROLES["mean"]:
                if f"validation/{role}/f1" in found.metrics:
                    trial.set_user_attr(f"validation/{role}/f1", found.metrics[f"validation/{role}/f1"])
            spent()
            self._failures = 0
            print(
                f"{self.setting.variant.name} trial {trial.number}: {values[0]:.4f} with {describe_point(point)}",
                flush=True,
            )
            return values
        except LostClaimError:
            raise
        except PrunedError as early:
            self._failures = 0
            spent()
            self._link(trial, tags)
            print(f"{self.setting.variant.name} trial {trial.number}: stopped {early}", flush=True)
            raise TrialPruned(str(early)) from early
        except SurplusError as error:
            trial.set_user_attr("error", str(error))
            if not isinstance(error, TwiceError) and "known" in trial.user_attrs:  # it is to be tried all the same
                self._optuna.enqueue_trial(frozen.system_attrs["fixed_params"], {"known": trial.user_attrs["known"]})
            raise
        except Exception as error:
            spent()
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
            self._link(trial, tags)
            raised = trial.user_attrs.get("raised", 0) + 1
            trial.set_user_attr("raised", raised)
            self._failures += 1
            if self._failures >= 2 * ATTEMPTS:
                self.problem = f"{type(error).__name__}: {error}"
            if raised < ATTEMPTS:
                enqueue_again(self._optuna, self._frozen(trial))
            raise

    def _reports(self, trial: Trial, spent: Callable[[], None]) -> PruningReports | None:
        """Return what tells the pruner; with two objectives there is none, but the languages are scored."""
        roles = ROLES[self.setting.objective.f1]
        if self.setting.objective.cost is not None:
            return PruningReports(roles=roles, times=1, report=lambda number, value: None)

        def report(number: int, value: float) -> None:
            if number not in self._frozen(trial).intermediate_values:  # an earlier attempt was here
                trial.report(value, number)
            spent()
            if number < self.setting.reports and trial.should_prune():  # at the end there is nothing to save
                raise PrunedError(f"after report {number} with {value:.4f}")

        return PruningReports(roles=roles, times=self.setting.reports, report=report)

    def _check_needed(self, trial: FrozenTrial, limit: int, *, retries_only: bool) -> None:
        own, known = root(trial), trial.user_attrs.get("known")
        trials = self.trials()
        past = history(trial)  # the last of them may not have ended yet
        alive = [t for t in trials if t.state is not TrialState.FAIL and t.number not in (trial.number, *past)]
        if any(root(t) == own for t in alive if t.number < trial.number):
            raise TwiceError("another worker has gone on with this trial")
        begun = needed(trials)
        # Also where the older one's worker has died since: what that one had done is gone on with.
        if known and any(t.user_attrs.get("known") == known and root(t) < own for t in (*alive, *begun)):
            raise TwiceError(f"two workers began with the {known} point")
        if own == trial.number:
            before = [t for t in begun if t.number < trial.number or root(t) != t.number]
            if retries_only or len(before) >= limit:
                raise SurplusError(f"other workers have begun the last of {limit} trials")

    def _earlier(self, point: Mapping[str, Any], before: int) -> int:
        """Return how many trials before had the same point: it is scored again with another seed."""
        return sum(t.params == point and root(t) == t.number and t.number < before for t in self.trials())

    def _retry_orphans(self) -> None:
        """Enqueue again the trials that were failed for a dead worker by one that died before it could say so."""
        for trial in needed(self.trials()):
            if trial.state is TrialState.FAIL:
                enqueue_again(self._optuna, trial)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._optuna._storage.get_trial(trial._trial_id)

    def _link(self, trial: Trial, tags: Mapping[str, str]) -> None:
        """Note the trial's MLflow run, if it has come to one."""
        for state in ("FINISHED", "FAILED"):
            run = self._tracker.find("trial", status=state, **tags)
            if run is not None:
                trial.set_user_attr("run_id", run.info.run_id)
                return

    def _parent(self, tracker: Tracker) -> str:
        """Return the id of the study's run: the oldest, where workers made several at once."""

        def found() -> list[Any]:
            runs = tracker.client.search_runs(
                [experiment_id(tracker.client, tracker.experiment)],
                f"tags.`whichlora.kind` = 'study' and tags.`whichlora.study` = '{self.name}'",
            )
            return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

        if not found():
            tags = {"study": self.name, "fingerprint": self.name.rpartition("/")[2]}
            tracker.open("study", f"study {self.name}", tags)
        first, *others = found()
        for run in others:
            with contextlib.suppress(Exception):  # its maker deletes it too
                tracker.client.delete_run(run.info.run_id)
        return str(first.info.run_id)
