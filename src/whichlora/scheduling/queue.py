"""Distributes cells of work among processes and machines through Optuna's database with heartbeats.

A cell is a string; here it is the training fingerprint of an adapter. It is stored as an enqueued trial without
parameters: waiting, then claimed by one worker, then complete or failed. When a worker dies its heartbeat stops;
another worker then fails its trial and enqueues the cell again. MLflow only records results and plays no part in
assigning work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from whichlora import termination
from whichlora.errors import LostLeaseError, NonFiniteError
from whichlora.masking import masked
from whichlora.parallel import lockstep
from whichlora.scheduling import storage
from whichlora.scheduling.leases import Leases
from whichlora.scheduling.retries import POLL_SECONDS, repeat_until_done

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

ATTEMPTS = 2
"""Maximum number of attempts at a cell that raises exceptions, per `offer`."""
DEATHS = 5
"""Maximum number of times a cell is enqueued again after its worker died: the cell itself may kill its workers."""


def connect(url: str | None = None) -> RDBStorage:
    """Open the database that holds the queues."""
    return storage.connect(_after_death, url)


class Queue:
    """A named queue. Any number of processes may offer cells and work on them concurrently."""

    def __init__(self, name: str, storage: RDBStorage) -> None:
        self._study: Study = optuna.create_study(
            study_name=f"queue/{name}",
            storage=storage,
            # Cells have no parameters to sample, but the default sampler would read the whole history for each one.
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        self._leases = Leases(self._study, _after_death)

    def completed(self) -> frozenset[int]:
        """Return the numbers of the trials that have completed a cell."""
        return frozenset(trial.number for trial in self._leases.trials() if "completed" in trial.user_attrs)

    def offer(self, cells: Iterable[str], *, completed: Collection[int] | None = None) -> None:
        """Enqueue the cells that are neither waiting nor running, in the given order.

        `completed` is what the method of this name returned before the cells were found to have no result (default:
        what it returns now). A cell that another trial has completed since, or that another process offers
        concurrently, is not repeated. Numbers of trials are compared, not times, because clocks of machines differ.
        """
        known = self.completed() if completed is None else completed
        self._leases.release_dead()
        earlier: dict[str, list[int]] = {}
        for trial in self._leases.trials():
            cell = trial.user_attrs.get("cell")
            if trial.number in known and cell is not None:
                earlier.setdefault(cell, []).append(trial.number)
        pending = {cell for cell, state in self.states().items() if not state.is_finished()}
        for cell in cells:
            if cell not in pending:
                _enqueue(self._study, cell, earlier.get(cell, []))

    def states(self) -> dict[str, TrialState]:
        """Return the state of every cell ever offered: the state of its newest trial that is not a duplicate."""
        newest: dict[str, TrialState] = {}
        for trial in self._leases.trials():
            if "cell" in trial.user_attrs and trial.state is not TrialState.PRUNED:
                newest[trial.user_attrs["cell"]] = trial.state
        return newest

    def work(
        self,
        process: Callable[[str, Callable[[], None]], Any],
        *,
        poll: float = POLL_SECONDS,
        stop: Callable[[], bool] = lambda: False,
        pack: int = 1,
    ) -> None:
        """Process waiting cells until none is waiting or running anywhere, or until `stop()` returns True.

        Args:
            process: called as `process(cell, check)`. It must call `check` before it writes a result; `check` raises
                `LostLeaseError` if this worker was suspended for so long that another worker has the cell. An exception
                fails the cell, which is enqueued again for up to `ATTEMPTS` attempts in total,
                except after a `NonFiniteError`.
            poll: seconds between database polls while idle.
            stop: returns whether this process can no longer work.
            pack: number of cells to process at once, with their training steps in lockstep.
        """

        def step() -> bool:
            self._leases.release_dead()
            states = {trial.state for trial in self._leases.trials(TrialState.WAITING, TrialState.RUNNING)}
            if TrialState.WAITING in states:
                self._study.optimize(lambda trial: self._process(trial, process), n_trials=1, catch=(Exception,))
            elif states and lockstep.others_active():
                return False  # another thread will look for further cells
            elif states:
                time.sleep(poll)
            return bool(states)

        lockstep.run(pack, lambda: repeat_until_done(step, poll=poll, stop=stop))

    def _process(self, trial: Trial, process: Callable[[str, Callable[[], None]], Any]) -> float:
        if "cell" not in trial.user_attrs:
            raise TrialPruned("another worker took the last waiting cell")
        cell: str = trial.user_attrs["cell"]
        check = self._leases.acquire(trial)
        if self._is_duplicate(trial, cell):
            raise TrialPruned("enqueued twice")
        try:
            process(cell, check)
        except LostLeaseError:
            raise
        except Exception as error:
            trial.set_user_attr("error", masked(f"{type(error).__name__}: {error}")[:1000])
            attempt = trial.user_attrs["attempt"]
            if attempt < ATTEMPTS and not isinstance(error, NonFiniteError):  # it would diverge again
                _enqueue(self._study, cell, _earlier(trial), attempt=attempt + 1, after=trial.number)
            raise
        except BaseException:  # an interrupt does not count as an attempt
            with termination.deferred():
                check()
                _enqueue(self._study, cell, _earlier(trial), attempt=trial.user_attrs["attempt"], after=trial.number)
            raise
        trial.set_user_attr("completed", True)
        return 0.0

    def _is_duplicate(self, trial: Trial, cell: str) -> bool:
        """Return whether an older trial holds the cell, or another one completed it since it was offered."""
        ignored = {trial.number, trial.user_attrs["after"], *_earlier(trial)}
        others = [t for t in self._leases.trials() if t.user_attrs.get("cell") == cell and t.number not in ignored]
        return any("completed" in t.user_attrs if t.state.is_finished() else t.number < trial.number for t in others)


def _enqueue(
    study: Study, cell: str, earlier: Sequence[int], *, attempt: int = 1, deaths: int = 0, after: int | None = None
) -> None:
    """Enqueue a cell.

    Args:
        study: the queue.
        cell: the cell.
        earlier: numbers of the trials that had completed the cell before its result was found missing.
        attempt: number of this attempt, from 1.
        deaths: number of workers that died while processing the cell.
        after: number of the trial that the new one replaces, which may still be running.
    """
    attributes = {"cell": cell, "earlier": list(earlier), "attempt": attempt, "deaths": deaths, "after": after}
    study.enqueue_trial({}, user_attrs=attributes)


def _earlier(trial: Trial | FrozenTrial) -> list[int]:
    """Return the trials that had completed a cell before it was offered; earlier versions stored none."""
    return list(trial.user_attrs.get("earlier", ()))


def _after_death(study: Study, trial: FrozenTrial) -> None:
    """Enqueue the cell of a dead worker again, unless more than `DEATHS` workers died while processing it."""
    attributes = trial.user_attrs
    if "cell" in attributes and attributes["deaths"] < DEATHS:
        deaths = attributes["deaths"] + 1
        _enqueue(study, attributes["cell"], _earlier(trial), attempt=attributes["attempt"], deaths=deaths)
