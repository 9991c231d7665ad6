"""Shares cells of work among processes and machines, through Optuna's database with heartbeats.

A cell is a string, here the training fingerprint of an adapter. It is an enqueued trial without parameters: waiting,
then claimed by one worker, then complete or failed. A worker that dies stops its heartbeat; another one then fails its
trial and enqueues the cell again. MLflow records what came out and is never asked who does what.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import psutil
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, TrialPruned
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from whichlora.errors import LostClaimError
from whichlora.tracking import sqlite_file

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

GRACE_SECONDS = int(os.environ.get("WHICHLORA_GRACE_SECONDS", "120"))
"""A worker that has not been heard of for so long is taken for dead."""
ATTEMPTS = 2
"""How often one call tries a cell that raises."""
DEATHS = 5
"""How many workers may die over a cell before it is given up: it may be what kills them."""
_SCHEMA_TRIES = 5


def storage_url() -> str:
    """Return the URL of the shared database: `WHICHLORA_STORAGE`, else a SQLite file beside MLflow's."""
    given = os.environ.get("WHICHLORA_STORAGE")
    if given:
        return given
    database = sqlite_file()
    return f"sqlite:///{(database.parent if database else Path.cwd()) / 'optuna.db'}"


def connect(url: str | None = None) -> RDBStorage:
    """Return the shared database, whose schema exists from now on.

    Processes that create it at once hinder each other: a SQLite file is created under a lock, a server's schema is
    tried again.
    """
    url = url or storage_url()
    warnings.filterwarnings("ignore", category=ExperimentalWarning, module="(optuna|whichlora)")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def open_storage() -> RDBStorage:
        return RDBStorage(
            url,
            heartbeat_interval=max(1, GRACE_SECONDS // 4),
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=_after_death,
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True},
        )

    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            return open_storage()
    for left in reversed(range(_SCHEMA_TRIES)):
        try:
            return open_storage()
        except Exception:  # what a half-made schema raises depends on the driver
            if not left:
                raise
            time.sleep(1)
    raise AssertionError


class Queue:
    """One named queue. Any number of processes may offer cells and work on them at once."""

    def __init__(self, name: str, storage: RDBStorage) -> None:
        self._storage = storage
        self._study: Study = optuna.create_study(
            study_name=f"queue/{name}",
            storage=storage,
            # Never asked for a value; the default sampler would read the whole history for each cell.
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        self._without_worker: dict[int, float] = {}

    def offer(self, cells: Iterable[str], *, missing_at: float | None = None) -> None:
        """Enqueue the cells that are neither waiting nor running, in this order.

        `missing_at` is when they were found to have no result (seconds since the epoch; now if not given). A cell that
        was completed since, or that another process offers at the same time, is not done again.
        """
        missing_at = time.time() if missing_at is None else missing_at
        taken = {cell for cell, state in self.states().items() if not state.is_finished()}
        for cell in cells:
            if cell not in taken:
                _enqueue(self._study, cell, missing_at)

    def states(self) -> dict[str, TrialState]:
        """Return the state of every cell that was ever offered: that of its newest trial that is no duplicate."""
        newest: dict[str, TrialState] = {}
        for trial in self._trials():
            if "cell" in trial.user_attrs and trial.state is not TrialState.PRUNED:
                newest[trial.user_attrs["cell"]] = trial.state
        return newest

    def work(self, do: Callable[[str, Callable[[], None]], Any], *, poll: float = 2.0) -> None:
        """Do waiting cells until none is waiting or running anywhere.

        `do(cell, check)` does one. It calls `check` before it writes a result, which raises `LostClaimError` where this
        worker was suspended for so long that another has the cell. What `do` raises fails the cell, which is enqueued
        again up to `ATTEMPTS`.
        """
        while True:
            try:
                self._release_dead()
                left = {trial.state for trial in self._trials(TrialState.WAITING, TrialState.RUNNING)}
                if not left:
                    return
                if TrialState.WAITING in left:
                    self._study.optimize(lambda trial: self._do(trial, do), n_trials=1, catch=(Exception,))
                else:
                    time.sleep(poll)  # a worker elsewhere may die and leave its cell
            except ValueError as error:
                # Optuna refuses the result of a worker that was taken for dead.
                if "Cannot tell" not in str(error):
                    raise
            except StorageInternalError:  # the server is away; claims and results wait for it
                time.sleep(poll)

    def _do(self, trial: Trial, do: Callable[[str, Callable[[], None]], Any]) -> float:
        if "cell" not in trial.user_attrs:
            raise TrialPruned("another worker took the last waiting cell")
        cell: str = trial.user_attrs["cell"]
        trial.set_user_attr("worker", _this_process())
        if self._is_duplicate(trial.number, cell, trial.user_attrs["missing_at"]):
            raise TrialPruned("enqueued twice")

        def check() -> None:
            if self._storage.get_trial(trial._trial_id).state is not TrialState.RUNNING:
                raise LostClaimError(f"this worker was not heard of for {GRACE_SECONDS} s; another has its cell")

        try:
            do(cell, check)
        except LostClaimError:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:1000])
            attempt = trial.user_attrs["attempt"]
            if attempt < ATTEMPTS:
                _enqueue(self._study, cell, time.time(), attempt=attempt + 1)
            raise
        except BaseException:  # interrupted, which is no fault of the cell
            _enqueue(self._study, cell, time.time(), attempt=trial.user_attrs["attempt"])
            raise
        trial.set_user_attr("completed", time.time())
        return 0.0

    def _is_duplicate(self, number: int, cell: str, missing_at: float) -> bool:
        """Whether an older trial holds the cell, or another completed it since it was found missing."""
        others = [t for t in self._trials() if t.user_attrs.get("cell") == cell and t.number != number]
        return any(
            t.user_attrs.get("completed", 0.0) >= missing_at if t.state.is_finished() else t.number < number
            for t in others
        )

    def _release_dead(self) -> None:
        """Fail the trials of dead workers and enqueue their cells again.

        Optuna does so once a heartbeat is overdue. A process of this machine is known to be dead at once, and one that
        died between its claim and its first heartbeat is known to Optuna never.
        """
        optuna.storages.fail_stale_trials(self._study)
        for trial in self._trials(TrialState.RUNNING):
            if self._is_dead(trial):
                try:
                    self._study.tell(trial.number, state=TrialState.FAIL)
                except ValueError:  # another worker was first
                    continue
                _after_death(self._study, trial)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is None:  # claimed a moment ago, or by a process that died in that moment
            first_seen = self._without_worker.setdefault(trial.number, time.monotonic())
            return time.monotonic() - first_seen > GRACE_SECONDS
        machine, pid, created = worker.rsplit("/", 2)
        if machine != _machine():
            return False
        try:
            return bool(created != f"{psutil.Process(int(pid)).create_time():.2f}")
        except psutil.NoSuchProcess:
            return True

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def _enqueue(study: Study, cell: str, missing_at: float, *, attempt: int = 1, deaths: int = 0) -> None:
    attributes = {"cell": cell, "missing_at": missing_at, "attempt": attempt, "deaths": deaths}
    study.enqueue_trial({}, user_attrs=attributes)


def _after_death(study: Study, trial: FrozenTrial) -> None:
    """Enqueue the cell of a dead worker, unless it has seen too many die."""
    attributes = trial.user_attrs
    if "cell" in attributes and attributes["deaths"] < DEATHS:
        deaths = attributes["deaths"] + 1
        _enqueue(study, attributes["cell"], attributes["missing_at"], attempt=attributes["attempt"], deaths=deaths)


def _machine() -> str:
    """Return a name within which process ids are comparable: containers may share a host's name, not its ids."""
    namespace = Path("/proc/self/ns/pid")
    return f"{platform.node()}/{namespace.readlink()}" if namespace.exists() else platform.node()


def _this_process() -> str:
    return f"{_machine()}/{os.getpid()}/{psutil.Process().create_time():.2f}"
