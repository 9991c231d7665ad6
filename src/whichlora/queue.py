"""Shares cells of work among processes and machines, through Optuna's database with heartbeats.

A cell is a string, here the training fingerprint of an adapter. It is an enqueued trial without parameters: waiting,
then claimed by one worker, then complete or failed. A worker that dies stops its heartbeat; another one then fails its
trial and enqueues the cell again. MLflow records what came out and is never asked who does what.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import psutil
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, TrialPruned, UpdateFinishedTrialError
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
_FAILURES = 60
"""So many failures of the database in a row end a worker: with the pauses between them, some minutes."""


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
        return _Storage(
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


class _Storage(RDBStorage):
    """Optuna's storage, whose heartbeat outlives a moment without the server: the thread would end for good."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


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
        self._release_dead()
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

    def work(
        self,
        do: Callable[[str, Callable[[], None]], Any],
        *,
        poll: float = 2.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do waiting cells until none is waiting or running anywhere, or `stop()` says that this process cannot.

        `do(cell, check)` does one. It calls `check` before it writes a result, which raises `LostClaimError` where this
        worker was suspended for so long that another has the cell. What `do` raises fails the cell, which is enqueued
        again up to `ATTEMPTS`.
        """
        failures = 0
        while not stop():
            try:
                self._release_dead()
                left = {trial.state for trial in self._trials(TrialState.WAITING, TrialState.RUNNING)}
                if not left:
                    return
                if TrialState.WAITING in left:
                    self._study.optimize(lambda trial: self._do(trial, do), n_trials=1, catch=(Exception,))
                else:
                    time.sleep(poll)  # a worker elsewhere may die and leave its cell
                failures = 0
            except Exception as error:
                # Optuna refuses the result of a worker that was taken for dead, and raises several kinds of error where
                # the server is away as it takes a result. The cell is then done again, and found to be done.
                failures += 1
                if failures == _FAILURES:
                    raise
                print(f"The queue does not answer as it should ({type(error).__name__}: {error}).", file=sys.stderr)
                time.sleep(poll)

    def _do(self, trial: Trial, do: Callable[[str, Callable[[], None]], Any]) -> float:
        if "cell" not in trial.user_attrs:
            raise TrialPruned("another worker took the last waiting cell")
        cell: str = trial.user_attrs["cell"]
        trial.set_user_attr("worker", _process(os.getpid()))
        if self._is_duplicate(trial.number, **trial.user_attrs):
            raise TrialPruned("enqueued twice")

        def check() -> None:
            try:
                state = self._storage.get_trial(trial._trial_id).state
            except StorageInternalError:  # not being able to ask is no loss
                return
            if state is not TrialState.RUNNING:
                raise LostClaimError(f"this worker was not heard of for {GRACE_SECONDS} s; another has its cell")

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
        others = [t for t in self._trials() if t.user_attrs.get("cell") == cell and t.number not in (number, after)]
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
                except (ValueError, UpdateFinishedTrialError):  # another worker was first
                    continue
                _after_death(self._study, trial)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is None:  # claimed a moment ago, or by a process that died in that moment
            first_seen = self._without_worker.setdefault(trial.number, time.monotonic())
            return time.monotonic() - first_seen > GRACE_SECONDS
        machine, pid, _ = str(worker).rsplit("/", 2)
        return machine == _machine() and str(worker) != _process(int(pid))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


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


def _machine() -> str:
    """Return a name within which process ids are comparable.

    Machines may share a name, and containers of one machine have ids of their own.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    own = f"/{boot.read_text().strip()}/{namespace.readlink()}" if boot.exists() and namespace.exists() else ""
    return platform.node() + own


def _process(pid: int) -> str | None:
    """Return a name for a process that no later one has, or None if there is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc").is_dir():
            # State, and start in ticks since the machine's: psutil's time moves when the clock is set.
            fields = stat.read_text().rpartition(")")[2].split()
            return None if fields[0] == "Z" else f"{_machine()}/{pid}/{fields[19]}"
        return f"{_machine()}/{pid}/{psutil.Process(pid).create_time()}"
    except (psutil.NoSuchProcess, OSError):
        return None
