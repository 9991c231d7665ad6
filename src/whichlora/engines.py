"""Where the runs of an experiment are done: in this process, or in several on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

_WORKER = "WHICHLORA_WORKER"


def is_worker() -> bool:
    """Whether this process was started by `run_locally`."""
    return _WORKER in os.environ


def run_locally(workers: int, file: str, tick: Callable[[], None]) -> list[int]:
    """Work on an experiment with so many processes until all have ended; `tick` is called now and then.

    They share out the processor's cores, and the GPUs in turn where there are any. The queue keeps them apart, so one
    that dies costs the others nothing.

    Returns:
        their exit statuses; a negative one is the signal that ended it.
    """
    command = [sys.executable, "-m", "whichlora.experiment", "--file", file]
    processes = [subprocess.Popen(command, env=_environment(number, workers)) for number in range(workers)]
    try:
        while any(process.poll() is None for process in processes):
            tick()
            time.sleep(2)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return [process.returncode for process in processes]


def _environment(number: int, workers: int) -> dict[str, str]:
    import torch

    environment = {**os.environ, _WORKER: str(number), "TQDM_DISABLE": "1"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // workers)))
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(
            ","
        )
        environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
    return environment
