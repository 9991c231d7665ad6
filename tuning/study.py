"""One Optuna study of one variant, shared by any number of workers that may die; and `status` and `stop` of studies.

python -m tuning.study status
python -m tuning.study stop NAME
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import TrialPruned
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from tuning.listing import PREFIX, status, stop
from tuning.sampling import TrialSampler, pruner_of
from tuning.setting import ROLES, TUNING_SEED, Setting
from tuning.space import told
from whichlora import storage
from whichlora.claims import Claims
from whichlora.errors import LostClaimError, OptionError, PrunedError
from whichlora.fitting import Reports
from whichlora.run import trial as run_trial

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

    from whichlora.tracking import Tracker

ATTEMPTS = 2
"""How often a point that raises is tried."""
DEATHS = 5
"""How many workers may die over a trial before it is given up: it may be what kills them."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
_after_death = RetryHeartbeatStaleTrialCallback(max_retry=DEATHS, inherit_intermediate_values=True)


class SurplusError(RuntimeError):
    """A trial that need not be: another worker has taken its place."""


def connect(url: str | None = None) -> RDBStorage:
    """Return the database of the studies."""
    return storage.connect(_after_death, url)


class Study:
    """A study in the shared database, opened or gone on with."""

    def __init__(self, setting: Setting, tracker: Tracker, database: RDBStorage, *, command: str) -> None:
        """Open the study of a setting.

        Args:
            tracker: writes trials, under the study's own run.
            command: what resumes it, for `status`.
        """
        self.setting, self.name = setting, setting.name()
        epochs = setting.space.dimensions.get("epochs")
        longest = max(epochs.values) if epochs is not None and hasattr(epochs, "values") else 1
        self._optuna = optuna.create_study(
            study_name=PREFIX + self.name,
            storage=database,
            directions=setting.objective.directions,
            sampler=TrialSampler(self.name),
            pruner=pruner_of(setting.pruner, reports=setting.reports * longest),
            load_if_exists=True,
        )
        self._claims = Claims(self._optuna, _after_death)
        self._optuna.set_user_attr("command", command)
        self._tracker = replace(tracker, parent=self._parent(tracker))
        self._opened = time.time()
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
        return float(sum(t.user_attrs.get("seconds", 0.0) for t in self.trials()))

    def hopeless(self) -> str | None:
        """Return the last error where the first points all failed since this process opened the study."""
        if self.counted():
            return None
        failed = [t for t in self.trials(TrialState.FAIL) if "error" in t.user_attrs and "seconds" in t.user_attrs]
        mine = [t for t in failed if t.datetime_complete and t.datetime_complete.timestamp() > self._opened]
        return str(mine[-1].user_attrs["error"]) if len(mine) >= 2 * ATTEMPTS else None

    def stopped(self) -> bool:
        """Whether `stop` was called since this process opened the study."""
        return bool(self._optuna.user_attrs.get("stopped", 0.0) > self._opened)

    def begun(self) -> int:
        """Return how many trials count or are being made."""
        return len(self.trials(*COUNTED, TrialState.RUNNING))

    def step(self, *, limit: int, open_for_new: bool) -> Literal["worked", "waiting", "finished"]:
        """Do one trial, if there is one to do; "waiting" says that only others are at work.

        Args:
            limit: how many complete and pruned trials there are to be.
            open_for_new: whether new trials may begin; those of dead workers are finished in any case.
        """
        self._claims.release_dead()
        self._retry_orphans()
        new = open_for_new and not self.stopped() and self.hopeless() is None
        retries = [t for t in self.trials(TrialState.WAITING) if _root(t) != t.number]
        if retries or (new and self.begun() < limit):
            self._optuna.optimize(lambda t: self._do(t, limit, retries_only=not new), n_trials=1, catch=(Exception,))
            return "worked"
        return "waiting" if self.trials(TrialState.RUNNING) else "finished"

    def _do(self, trial: Trial, limit: int, *, retries_only: bool) -> Any:
        check = self._claims.take(trial)
        frozen = self._frozen(trial)
        root = _root(frozen)
        began, before = time.monotonic(), float(trial.user_attrs.get("seconds", 0.0))

        def spent() -> None:
            trial.set_user_attr("seconds", before + time.monotonic() - began)

        tags = {"study": self.name, "trial": str(root)}
        try:
            self._check_needed(frozen, limit, retries_only=retries_only)
            point = self.setting.space.suggest(trial)
            if "seed" not in trial.user_attrs:
                trial.set_user_attr("seed", TUNING_SEED + self._earlier(point, root))
            plan = self.setting.plan(point, trial.user_attrs["seed"])
            found = run_trial(plan, replace(self._tracker, claim=check), tags=tags, reports=self._reports(trial, spent))
            values = self.setting.objective.values(found.metrics)
            trial.set_user_attr("run_id", found.run_id)
            for role in ROLES["mean"]:
                if f"validation/{role}/f1" in found.metrics:
                    trial.set_user_attr(f"validation/{role}/f1", found.metrics[f"validation/{role}/f1"])
            spent()
            print(f"{self.setting.variant.name} trial {trial.number}: {values[0]:.4f} with {told(point)}", flush=True)
            return values
        except LostClaimError:
            raise
        except PrunedError as early:
            spent()
            self._link(trial, tags)
            print(f"{self.setting.variant.name} trial {trial.number}: stopped {early}", flush=True)
            raise TrialPruned(str(early)) from early
        except SurplusError as error:
            trial.set_user_attr("error", str(error))
            raise
        except Exception as error:
            spent()
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
            self._link(trial, tags)
            if len(RetryHeartbeatStaleTrialCallback.retry_history(frozen)) + 1 < ATTEMPTS:
                _after_death(self._optuna, self._frozen(trial))
            raise

    def _reports(self, trial: Trial, spent: Callable[[], None]) -> Reports | None:
        """Return what asks the pruner, with one objective."""
        if self.setting.objective.cost is not None:
            return None

        def report(number: int, value: float) -> None:
            if number not in self._frozen(trial).intermediate_values:  # an earlier attempt was here
                trial.report(value, number)
            spent()
            if trial.should_prune():
                raise PrunedError(f"after report {number} with {value:.4f}")

        return Reports(roles=ROLES[self.setting.objective.f1], per_epoch=self.setting.reports, report=report)

    def _check_needed(self, trial: FrozenTrial, limit: int, *, retries_only: bool) -> None:
        root, known = _root(trial), trial.user_attrs.get("known")
        history = RetryHeartbeatStaleTrialCallback.retry_history(trial)  # the last may not have ended yet
        before = [t for t in self.trials() if t.number < trial.number and t.number not in history]
        others = [t for t in before if t.state is not TrialState.FAIL]
        if any(_root(t) == root for t in others):
            raise SurplusError("another worker has gone on with this trial")
        if known and any(t.user_attrs.get("known") == known for t in others):
            raise SurplusError(f"two workers began with the {known} point")
        if root == trial.number and (retries_only or sum(t.state is not TrialState.WAITING for t in others) >= limit):
            raise SurplusError(f"other workers have begun the last of {limit} trials")

    def _earlier(self, point: Mapping[str, Any], root: int) -> int:
        """Return how many trials before had the same point: it is scored again with another seed."""
        return sum(t.params == point and _root(t) == t.number and t.number < root for t in self.trials())

    def _retry_orphans(self) -> None:
        """Enqueue again the trials that were failed for a dead worker by one that died before it could say so."""
        trials = self.trials()
        followed = {n for t in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(t)}
        for trial in trials:
            if trial.state is TrialState.FAIL and "error" not in trial.user_attrs and trial.number not in followed:
                _after_death(self._optuna, trial)

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
        from whichlora.tracking import experiment_id

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


def _root(trial: FrozenTrial) -> int:
    """Return the number of the trial that one goes on with: its own, unless it is a retry."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def main(arguments: Sequence[str] | None = None) -> int:
    """List or stop studies. Returns the exit status: 2 for bad options."""
    parser = argparse.ArgumentParser(prog="python -m tuning.study", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="list the studies")
    commands.add_parser("stop", help="end a study after its running trials").add_argument("study")
    given = parser.parse_args(arguments)
    database = connect()
    try:
        if given.command == "stop":
            stop(database, given.study)
            print(f"{given.study} ends after its running trials.")
        else:
            print(status(database))
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
