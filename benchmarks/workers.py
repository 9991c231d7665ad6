"""Runs each side of a comparison as a worker process that loads once and then answers requests.

Requests and answers are JSON lines over stdin and stdout, so that sides in different Python environments can alternate.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass
class Stopwatch:
    """Measures wall-clock and CPU seconds (over all cores) of a `with` block."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Stopwatch:
        wait_for_gpu()
        self._began = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *error: object) -> None:
        wait_for_gpu()
        self.wall, self.cpu = time.perf_counter() - self._began[0], _cpu_seconds() - self._began[1]

    def seconds(self) -> dict[str, float]:
        """Return the seconds by clock, as the answer to a request."""
        return {"wall": self.wall, "cpu": self.cpu}


def wait_for_gpu() -> None:
    """Wait until the GPU, if torch uses one, has done what was asked of it."""
    if (torch := _torch_with_gpu()) is not None:
        torch.cuda.synchronize()


def _torch_with_gpu() -> Any:
    """Return torch if this process has imported it and it has a GPU, else None; the peers may have no torch."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_available() else None


def _gpu_peak_mib() -> float:
    """Return the most GPU memory in MiB that torch has held since the last request; 0 without a GPU."""
    if (torch := _torch_with_gpu()) is None:
        return 0.0
    peak: float = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return peak


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the children that it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system  # os.times resolves only 1/100 s


def _peak_mib() -> float:
    """Return the peak resident memory of this process in MiB.

    On Linux `ru_maxrss` is inherited from the parent through fork and exec, so VmHWM is read from /proc if available.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def serve(side: object) -> None:
    """Answer requests with the public methods of `side` until the parent closes stdin.

    Anything that libraries print is redirected to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request.pop("verb"))(**request) or {}
            answer["cpu_total"] = _cpu_seconds()
            answer["peak_mib"] = _peak_mib()
            answer["gpu_peak_mib"] = _gpu_peak_mib()
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


class WorkerError(RuntimeError):
    """A worker failed to answer a request."""


class Worker:
    """The parent's handle to a worker process."""

    def __init__(
        self,
        module: str,
        *,
        threads: int,
        log: Path,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start `module`, which must call `serve`.

        Args:
            threads: number of threads of the worker.
            log: file for the worker's stderr.
            python: interpreter, possibly of another environment.
            variables: additional environment variables.
        """
        self.module, self._log = module, log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=worker_environment(threads) | dict(variables or {}),
            )

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises:
            WorkerError: the request failed or the worker died; the message holds its traceback or the end of its log.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps({"verb": verb, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._log.read_text()[-2000:]}
        if "error" in answer:
            raise WorkerError(f"{self.module}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Close the pipes and wait for the process to end."""
        self._process.communicate()


@contextmanager
def running_worker(module: str, **arguments: Any) -> Iterator[Worker]:
    """Yield a worker that is closed at the end of the block."""
    worker = Worker(module, **arguments)
    try:
        yield worker
    finally:
        worker.close()


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment variables of a worker: `threads` threads, offline, without MLflow's variables."""
    variables = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | variables
