"""Treats the running trials of a shared Optuna study as leases, each held by one worker.

Checks that a lease is still valid, and releases the leases of dead workers.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import psutil
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from whichlora.errors import LostLeaseError
from whichlora.scheduling.storage import GRACE_SECONDS, AfterDeath, heartbeats, stored_trial

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


class Leases:
    """The leases of one study; `after_death` is called with each trial whose worker died."""

    def __init__(self, study: Study, after_death: AfterDeath) -> None:
        self._study, self._after_death = study, after_death
        self._first_seen: dict[tuple[int, str | None], float] = {}

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all trials if no state is passed."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    def acquire(self, trial: Trial) -> Callable[[], None]:
        """Record this process as the holder of a trial that Optuna assigned to it.

        Returns:
            A function to call before writing a result. It raises `LostLeaseError` if this worker was suspended for so
            long that it was declared dead and its work was given to another worker.
        """
        trial.set_user_attr("worker", _process_name(os.getpid()))

        def check() -> None:
            try:
                state = stored_trial(self._study, trial).state
            except StorageInternalError:  # an unreachable database does not mean that the lease is lost
                return
            if state is not TrialState.RUNNING:
                raise LostLeaseError(
                    f"no heartbeat from this worker for {GRACE_SECONDS} s: its work was given to another worker"
                )

        return check

    def release_dead(self) -> None:
        """Fail the trials of dead workers and pass them to `after_death`.

        Optuna does so only for trials with an overdue heartbeat. Three cases are added: dead processes of this machine,
        which are detected at once; workers that died between claiming a trial and its first heartbeat, which Optuna
        never detects; and heartbeats later than the database's clock, which Optuna would await.
        """
        optuna.storages.fail_stale_trials(self._study)
        for trial in self.orphans():
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):  # another worker was first
                continue
            self._after_death(self._study, trial)

    def orphans(self) -> list[FrozenTrial]:
        """Return the running trials whose worker has died.

        A worker is dead if it was a process of this machine that no longer exists, or if this process has seen neither
        a holder nor a new heartbeat for the grace period.
        """
        running = self.trials(TrialState.RUNNING)
        elsewhere = any(_machine_of(trial) not in (None, _machine()) for trial in running)
        last = heartbeats(self._study) if elsewhere else {}
        return [trial for trial in running if self._is_dead(trial, last.get(trial.number))]

    def _is_dead(self, trial: FrozenTrial, heartbeat: str | None) -> bool:
        if _machine_of(trial) == _machine():
            worker = str(trial.user_attrs["worker"])
            return worker != _process_name(int(worker.rsplit("/", 2)[1]))
        # Without a holder it was just claimed, or the worker died before it recorded itself.
        first_seen = self._first_seen.setdefault((trial.number, heartbeat), time.monotonic())
        return time.monotonic() - first_seen > GRACE_SECONDS


def _machine_of(trial: FrozenTrial) -> str | None:
    worker = trial.user_attrs.get("worker")
    return None if worker is None else str(worker).rsplit("/", 2)[0]


def _machine() -> str:
    """Return a name that identifies the scope in which process ids are unique.

    The host name does not suffice: machines may share one, and each container has its own process ids.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    suffix = f"/{boot.read_text().strip()}/{namespace.readlink()}" if boot.exists() and namespace.exists() else ""
    return platform.node() + suffix


def _process_name(pid: int) -> str | None:
    """Return a name that remains unique when the pid is reused; None if the process does not exist."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc").is_dir():
            # State, and start time in ticks since boot: psutil's start time changes when the clock is set.
            fields = stat.read_text().rpartition(")")[2].split()
            return None if fields[0] == "Z" else f"{_machine()}/{pid}/{fields[19]}"
        return f"{_machine()}/{pid}/{psutil.Process(pid).create_time()}"
    except (psutil.NoSuchProcess, OSError):
        return None
