"""Shares cells of work among processes and machines, through Optuna's database with heartbeats.

A cell is a string, here the training fingerprint of an adapter. It is an enqueued trial without parameters: waiting,
then claimed by one worker, then complete or failed. A worker that dies stops its heartbeat; another one then fails its
trial and enqueues the cell again. MLflow records what came out and is never asked who does what.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from whichlora.errors import LostClaimError
from whichlora.parallel import lockstep
from whichlora.scheduling import storage
from whichlora.scheduling.leases import Leases
from whichlora.scheduling.retries import POLL_SECONDS, repeat_until_done

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

ATTEMPTS = 2
"""How often one call tries a cell that raises."""
DEATHS = 5
"""How many workers may die over a cell before it is given up: it may be what kills them."""


def connect(url: str | None = None) -> RDBStorage:
    """Return the database of the queues."""
    return storage.connect(_after_death, url)


class Queue:
    """One named queue. Any number of processes may offer cells and work on them at once."""

    def __init__(self, name: str, storage: RDBStorage) -> None:
        self._study: Study = optuna.create_study(
            study_name=f"queue/{name}",
            storage=storage,
            # Never asked for a value; the default sampler would read the whole history for each cell.
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        self._claims = Leases(self._study, _after_death)

    def offer(self, cells: Iterable[str], *, missing_at: float | None = None) -> None:
        """Enqueue the cells that are neither waiting nor running, in this order.

        `missing_at` is when they were found to have no result (seconds since the epoch; now if not given). A cell that
        was completed since, or that another process offers at the same time, is not done again.
        """
        missing_at = time.time() if missing_at is None else missing_at
        self._claims.release_dead()
        taken = {cell for cell, state in self.states().items() if not state.is_finished()}
        for cell in cells:
            if cell not in taken:
                _enqueue(self._study, cell, missing_at)

    def states(self) -> dict[str, TrialState]:
        """Return the state of every cell that was ever offered: that of its newest trial that is no duplicate."""
        newest: dict[str, TrialState] = {}
        for trial in self._claims.trials():
            if "cell" in trial.user_attrs and trial.state is not TrialState.PRUNED:
                newest[trial.user_attrs["cell"]] = trial.state
        return newest

    def work(
        self,
        do: Callable[[str, Callable[[], None]], Any],
        *,
        poll: float = POLL_SECONDS,
        stop: Callable[[], bool] = lambda: False,
        pack: int = 1,
    ) -> None:
        """Do waiting cells until none is waiting or running anywhere, or `stop()` says that this process cannot.

        With `pack` so many cells are done at once, whose training steps are taken together (`convoy`).

        `do(cell, check)` does one. It calls `check` before it writes a result, which raises `LostClaimError` where this
        worker was suspended for so long that another has the cell. What `do` raises fails the cell, which is enqueued
        again up to `ATTEMPTS`.
        """

        def step() -> bool:
            self._claims.release_dead()
            left = {trial.state for trial in self._claims.trials(TrialState.WAITING, TrialState.RUNNING)}
            if TrialState.WAITING in left:
                self._study.optimize(lambda trial: self._do(trial, do), n_trials=1, catch=(Exception,))
            elif left and lockstep.others_active():
                return False  # one that is still at work looks for more
            elif left:
                time.sleep(poll)
            return bool(left)

        lockstep.run(pack, lambda: repeat_until_done(step, poll=poll, stop=stop))

    def _do(self, trial: Trial, do: Callable[[str, Callable[[], None]], Any]) -> float:
        if "cell" not in trial.user_attrs:
            raise TrialPruned("another worker took the last waiting cell")
        cell: str = trial.user_attrs["cell"]
        check = self._claims.take(trial)
        if self._is_duplicate(trial.number, **trial.user_attrs):
            raise TrialPruned("enqueued twice")
        try:
            do(cell, check)
        except LostClaimError:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
            attempt = trial.user_attrs["attempt"]
            if attempt < ATTEMPTS:
                _enqueue(self._study, cell, time.time(), attempt=attempt + 1, after=trial.number)
            raise
        except BaseException:  # interrupted, which is no fault of the cell
            check()
            _enqueue(self._study, cell, time.time(), attempt=trial.user_attrs["attempt"], after=trial.number)
            raise
        trial.set_user_attr("completed", time.time())
        return 0.0

    def _is_duplicate(self, number: int, *, cell: str, missing_at: float, after: int | None, **_: Any) -> bool:
        """Whether an older trial holds the cell, but for the one it comes after, or one completed it in between."""
        others = [
            t for t in self._claims.trials() if t.user_attrs.get("cell") == cell and t.number not in (number, after)
        ]
        return any(
            t.user_attrs.get("completed", 0.0) >= missing_at if t.state.is_finished() else t.number < number
            for t in others
        )


def _enqueue(
    study: Study, cell: str, missing_at: float, *, attempt: int = 1, deaths: int = 0, after: int | None = None
) -> None:
    """Enqueue a cell; `after` is the number of the trial it follows, which may not have ended yet."""
    attributes = {"cell": cell, "missing_at": missing_at, "attempt": attempt, "deaths": deaths, "after": after}
    study.enqueue_trial({}, user_attrs=attributes)


def _after_death(study: Study, trial: FrozenTrial) -> None:
    """Enqueue the cell of a dead worker, unless it has seen too many die."""
    attributes = trial.user_attrs
    if "cell" in attributes and attributes["deaths"] < DEATHS:
        deaths = attributes["deaths"] + 1
        _enqueue(study, attributes["cell"], attributes["missing_at"], attempt=attributes["attempt"], deaths=deaths)
