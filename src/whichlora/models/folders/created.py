"""Creates a folder of the user's cache once, whatever processes start at the same time, are killed or lose power.

It is written to a temporary sibling, synced to disk and renamed when complete, under a file lock. Later uses compare
the files with the record of `folders.verified`; where it differs, the content is checked, and a damaged folder is
created again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from whichlora.announcements import announced
from whichlora.errors import printable
from whichlora.models.folders import verified

MAKING = ".making-"
"""Part of the name of a folder that is not complete."""


class NotCreatedError(RuntimeError):
    """A folder could not be created; the message says why."""


def provide(folder: Path, *, name: str, is_intact: Callable[[Path], bool], write: Callable[[Path, Path], None]) -> None:
    """Create a folder if it is missing or damaged.

    Args:
        name: what it holds, for messages.
        is_intact: returns whether a folder has the right content; reads all of it.
        write: writes the content to its second argument, an empty folder, with the first for files of its own. It
            raises NotCreatedError if it cannot, or if what it wrote is not right.

    Raises:
        NotCreatedError: it cannot be created.
    """
    if verified.is_unchanged(folder):
        return

    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(lock_file(folder))
        try:
            held = lock.acquire(blocking=False)
        except filelock.Timeout:
            print(f"{printable(name)}: waiting for another process that is creating it", file=sys.stderr)
            held = lock.acquire()
        with held:
            with announced(f"Verifying the files of {name}."):
                intact = verified.is_unchanged(folder) or _verify(folder, is_intact)
            if not intact:
                (_recreate if folder.exists() else _create)(folder, name, write)
    except OSError as error:
        if is_intact(folder):  # in a read-only cache
            return
        raise NotCreatedError(f"could not create {folder}: {error}") from error


def lock_file(folder: Path) -> Path:
    """Return the file whose lock is held while a folder is created or removed."""
    return folder.with_name(f"{folder.name}.lock")


def _verify(folder: Path, is_intact: Callable[[Path], bool]) -> bool:
    """Return whether the folder is intact, and record it if it is. Requires the lock."""
    if not is_intact(folder):
        return False
    verified.record(folder)
    return True


def _recreate(folder: Path, name: str, write: Callable[[Path, Path], None]) -> None:
    """Replace a damaged folder. Requires the lock.

    Raises:
        NotCreatedError: a new one cannot be created; the message names the folder.
    """
    print(printable(f"{name}: {folder} is incomplete or damaged; creating it again"), file=sys.stderr)
    try:
        _create(folder, name, write)
    except (NotCreatedError, OSError) as error:
        raise NotCreatedError(
            f"{folder} is incomplete or damaged and could not be created again; delete this folder ({error})"
        ) from error


def _create(folder: Path, name: str, write: Callable[[Path, Path], None]) -> None:
    """Write into a temporary sibling of `folder` and rename. Requires the lock."""
    prefix = f"{folder.name}{MAKING}"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of killed processes
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as work:
        created = Path(work) / "model"
        created.mkdir()
        write(Path(work), created)
        verified.sync(created)
        if folder.exists():  # damaged
            folder.replace(Path(work) / "damaged")
        created.replace(folder)
        verified.fsync(folder.parent)
    verified.record(folder)
