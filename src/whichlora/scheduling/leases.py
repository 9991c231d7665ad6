"""Trials of a shared study as claims of workers: which worker lives, and whether a claim still holds."""

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

from whichlora.errors import LostClaimError
from whichlora.scheduling.storage import GRACE_SECONDS, AfterDeath

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


class Leases:
    """The trials of one study, each of which one worker holds at a time."""

    def __init__(self, study: Study, after_death: AfterDeath) -> None:
        self._study, self._after_death = study, after_death
        self._without_worker: dict[int, float] = {}

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    def take(self, trial: Trial) -> Callable[[], None]:
        """Sign a trial that this process was given.

        Returns:
            a function to call before a result is written. It raises `LostClaimError` where this worker was suspended
            for so long that another has the trial.
        """
        trial.set_user_attr("worker", _process(os.getpid()))
        storage = self._study._storage

        def check() -> None:
            try:
                state = storage.get_trial(trial._trial_id).state
            except StorageInternalError:  # not being able to ask is no loss
                return
            if state is not TrialState.RUNNING:
                raise LostClaimError(f"this worker was not heard of for {GRACE_SECONDS} s; another has its work")

        return check

    def release_dead(self) -> None:
        """Fail the trials of dead workers and hand them to `after_death`.

        Optuna does so once a heartbeat is overdue. A process of this machine is known to be dead at once, and one that
        died between its claim and its first heartbeat is known to Optuna never.
        """
        optuna.storages.fail_stale_trials(self._study)
        for trial in self.orphans():
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):  # another worker was first
                continue
            self._after_death(self._study, trial)

    def orphans(self) -> list[FrozenTrial]:
        """Return the trials that a process of this machine had begun and died over."""
        return [trial for trial in self.trials(TrialState.RUNNING) if self._is_dead(trial)]

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is None:  # claimed a moment ago, or by a process that died in that moment
            first_seen = self._without_worker.setdefault(trial.number, time.monotonic())
            return time.monotonic() - first_seen > GRACE_SECONDS
        machine, pid, _ = str(worker).rsplit("/", 2)
        return machine == _machine() and str(worker) != _process(int(pid))


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
