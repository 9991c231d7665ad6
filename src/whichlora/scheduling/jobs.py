"""Jobs for workers, and what an engine is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

_WORKER = "WHICHLORA_WORKER"


@dataclass(frozen=True)
class Job:
    """What every worker does: it calls `main` of a module with these arguments, which returns an exit status."""

    module: str
    arguments: Sequence[str]


class Engine(Protocol):
    """Runs several workers at once."""

    workers: int

    def connect(self) -> None:
        """Find what the workers need.

        Raises:
            OptionError: they cannot work as things are; the message says why.
        """

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """Have every worker do the job until all have ended; `tick` is called now and then.

        Returns:
            what became of the workers that did not end well, a text for each.
        """


def is_worker() -> bool:
    """Whether this process was started by an engine."""
    return _WORKER in os.environ


def mark_worker(name: object) -> dict[str, str]:
    """Return the environment variables by which a process knows that it is a worker."""
    return {_WORKER: str(name), "TQDM_DISABLE": "1"}
