"""Locks work folders against other processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from whichlora.parallel import lockstep


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Hold the lock of a run's work folder inside this context, printing a message if another process holds it.

    In lockstep, other runs continue while this one waits.
    """
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_of(work))
    announced = False
    while True:
        try:
            lock.acquire(blocking=announced and not lockstep.active())
            break
        except Timeout:
            if not announced:
                print(
                    f"Waiting: another process is working on the same run or probe (it holds {lock.lock_file}). "
                    "Its result is used when it has finished.",
                    file=sys.stderr,
                )
            announced = True
            if lockstep.active():
                lockstep.yield_turn()
    try:
        yield
    finally:
        lock.release()


def is_held(work: Path) -> bool:
    """Return whether a process of this machine, or one that shares the folder, is at work in a run's work folder."""
    return is_locked(lock_of(work))


def is_locked(lock: Path) -> bool:
    """Return whether a process holds the lock of a file, which need not exist."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except (Timeout, OSError):  # OSError: the lock of another user, which cannot be tried
        return True


def lock_of(work: Path) -> Path:
    """Return the file whose lock is held while a process is at work in a run's work folder."""
    return work.with_suffix(".lock")
