"""Runs workers: in this process, in several processes of this machine, or in tasks of a Ray cluster.

Workers coordinate only through a shared queue or study, so the death of one does not affect the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from whichlora import cores, termination
from whichlora.announcements import announce
from whichlora.errors import OptionError, check_choice, parse_integer
from whichlora.parallel import distributed
from whichlora.scheduling.jobs import Engine, Job, mark_worker

ENGINES = ("local", "ray")
MAX_WORKERS = 1024
_END_SECONDS = termination.SAVE_SECONDS + 5
"""Time for workers to save a checkpoint and mark their runs, after which they are killed."""


def engine_of(name: str, workers: str) -> Engine | None:
    """Return the engine for this number of workers, or None if this process should do the work itself.

    Raises:
        OptionError: `name` or `workers` has an invalid value, or a package is missing.
    """
    check_choice("engine", name, ENGINES)
    count = parse_integer("workers", workers, 1, MAX_WORKERS)
    if name == "ray":
        distributed.check_one_process("engine", name, "must be local")
        if find_spec("ray") is None:
            raise OptionError("engine", name, "needs the extra `ray`: pip install 'whichlora[ray]'")
        from whichlora.scheduling.ray_cluster import RayTasks

        return RayTasks(count)
    if count == 1:
        return None
    distributed.check_one_process("workers", workers, "must be 1")
    return LocalProcesses(count)


class LocalProcesses:
    """Local worker processes; CPU cores are divided evenly, and GPUs, if any, are assigned round robin.

    When this process ends, for whatever reason, the workers save a checkpoint, mark their runs and end, too.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def connect(self) -> None:
        """Do nothing: local workers need no connection."""

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """See `Engine`."""
        command = [sys.executable, "-m", job.module, *job.arguments]
        environments = [self._environment(number) for number in range(self.workers)]
        processes = termination.workers
        try:
            announce(f"Starting {self.workers} workers.")
            with termination.deferred():  # a signal in between would leave workers that nobody ends
                processes += [subprocess.Popen(command, env=environment) for environment in environments]
            termination.check()
            while any(process.poll() is None for process in processes):
                tick()
                time.sleep(2)
        finally:
            _end(processes)
        statuses = [process.returncode for process in processes]
        processes.clear()
        return [_reason(status) for status in statuses if status]

    def _environment(self, number: int) -> dict[str, str]:
        import torch

        environment = {**os.environ, **mark_worker(number), termination.PARENT: str(os.getpid())}
        environment |= cores.worker_variables(self.workers)
        if torch.cuda.is_available():
            all_devices = ",".join(map(str, range(torch.cuda.device_count())))
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", all_devices).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
        return environment


def _reason(status: int) -> str:
    """Return how a worker failed, from its return code."""
    if status == -signal.SIGKILL:
        return "SIGKILL, which the system sends when memory runs out"
    return f"signal {-status}" if status < 0 else f"status {status}, see the error above"


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask workers to end, and wait until they have."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
