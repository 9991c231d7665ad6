"""Defines the job that workers do and the interface of the engines that run workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

_WORKER = "WHICHLORA_WORKER"


@dataclass(frozen=True)
class Job:
    """The work of every worker: a call of `main(arguments)` of a module, which returns an exit status."""

    module: str
    arguments: Sequence[str]


class Engine(Protocol):
    """Runs several workers at once."""

    workers: int

    def connect(self) -> None:
        """Check the environment and connect to it, before any worker is started.

        Raises:
            OptionError: workers cannot run in this environment.
        """

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """Run the job in every worker and return once all have ended, calling `tick` every few seconds.

        Returns:
            One message for each worker that failed.
        """


def run_workers(engine: Engine, job: Job, tick: Callable[[], None] = lambda: None) -> int:
    """Run a job in the workers of an engine, print why workers failed, and return the number of those that did."""
    failures = engine.run(job, tick)
    if failures:
        print(f"{len(failures)} of {engine.workers} workers failed: {'; '.join(failures)}.", file=sys.stderr)
    return len(failures)


def is_worker() -> bool:
    """Return whether this process was started by an engine."""
    return _WORKER in os.environ


def mark_worker(name: object) -> dict[str, str]:
    """Return the environment variables that mark a process as a worker."""
    return {_WORKER: str(name), "TQDM_DISABLE": "1"}
