"""Locks on work folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from whichlora.parallel import lockstep


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Hold a run's work folder, saying so if it has to be waited for; others of a convoy go on meanwhile."""
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_suffix(".lock"))
    told = False
    while True:
        try:
            lock.acquire(blocking=told and not lockstep.active())
            break
        except Timeout:
            if not told:
                print("Waiting: another process is working on the same spec.", file=sys.stderr)
            told = True
            if lockstep.active():
                lockstep.yield_turn()
    try:
        yield
    finally:
        lock.release()
