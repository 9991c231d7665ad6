"""Runs workers: in this process, in several processes of this machine, or in tasks of a Ray cluster.

Workers coordinate only through a shared queue or study, so the death of one does not affect the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from whichlora.errors import OptionError, check_choice, parse_integer
from whichlora.parallel import distributed
from whichlora.scheduling.jobs import Engine, Job, mark_worker

ENGINES = ("local", "ray")
MAX_WORKERS = 1024


def engine_of(name: str, workers: str) -> Engine | None:
    """Return the engine for this number of workers, or None if this process should do the work itself.

    Raises:
        OptionError: `name` or `workers` has an invalid value, or a package is missing.
    """
    check_choice("engine", name, ENGINES)
    count = parse_integer("workers", workers, 1, MAX_WORKERS)
    if name == "ray":
        if distributed.world_size() > 1:
            raise OptionError("engine", name, "must be local under accelerate launch, whose processes train together")
        if find_spec("ray") is None:
            raise OptionError("engine", name, "needs the extra `ray`: pip install 'whichlora[ray]'")
        from whichlora.scheduling.ray_cluster import RayTasks

        return RayTasks(count)
    if count == 1:
        return None
    if distributed.world_size() > 1:
        raise OptionError("workers", workers, "must be 1 under accelerate launch, whose processes train together")
    return LocalProcesses(count)


class LocalProcesses:
    """Local worker processes; CPU cores are divided evenly, and GPUs, if any, are assigned round robin."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def connect(self) -> None:
        """Do nothing: local workers need no connection."""

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """See `Engine`."""
        command = [sys.executable, "-m", job.module, *job.arguments]
        processes = [subprocess.Popen(command, env=self._environment(number)) for number in range(self.workers)]
        try:
            while any(process.poll() is None for process in processes):
                tick()
                time.sleep(2)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        statuses = [process.returncode for process in processes]
        return [f"signal {-status}" if status < 0 else f"status {status}" for status in statuses if status]

    def _environment(self, number: int) -> dict[str, str]:
        import torch

        environment = {**os.environ, **mark_worker(number)}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // self.workers)))
        if torch.cuda.is_available():
            all_devices = ",".join(map(str, range(torch.cuda.device_count())))
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", all_devices).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
        return environment
