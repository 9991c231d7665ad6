"""Finds what this project has stored: the packaged model, downloaded predictions, checkpoints of unfinished runs."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from whichlora.models import in_use
from whichlora.models.packaged import MODEL_NAME, lock_file, packaged_model_folder
from whichlora.models.verified_folder import record_path
from whichlora.parallel.locks import is_locked, lock_of
from whichlora.tracking.client import work_folder

PREDICTIONS = "predictions"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something stored that can be removed, and would be downloaded, converted or computed again.

    Attributes:
        name: unique, for the option `remove`.
        what: what it is, in words.
        size: bytes on the disk.
        is_used: returns whether a running process needs it.
        remove: removes it.

    `remove` raises:
        OSError: it cannot be removed.
        TimeoutError: a process has begun to use it.
    """

    name: str
    what: str
    path: Path
    size: int
    is_used: Callable[[], bool]
    remove: Callable[[], None]


def own_entries() -> Iterator[Entry]:
    """Yield what is in this project's folder of the user's cache."""
    cache = platformdirs.user_cache_path("whichlora")
    current = packaged_model_folder()
    for folder in sorted(cache.glob(f"{MODEL_NAME}-*/")):
        lock = lock_file(current)
        if folder == current:
            name, what = MODEL_NAME, "the packaged model, converted; downloaded again when needed"
        elif ".making-" in folder.name:
            name, what = folder.name, "an interrupted conversion of the packaged model"
        else:
            name, what, lock = folder.name, "the packaged model of another version", lock_file(folder)
        yield Entry(
            name=name,
            what=what,
            path=folder,
            size=size_of(folder),
            is_used=lambda lock=lock: in_use.is_marked(MODEL_NAME) or is_locked(lock),  # type: ignore[misc]
            remove=lambda folder=folder, lock=lock: _remove(folder, lock, record_path(folder)),  # type: ignore[misc]
        )
    downloaded = cache / "artifacts"
    if downloaded.is_dir():
        yield Entry(
            name=PREDICTIONS,
            what="predictions that analyze and diff downloaded from tracking servers",
            path=downloaded,
            size=size_of(downloaded),
            is_used=lambda: False,  # what is missing is downloaded again
            remove=lambda: remove_folder(downloaded),
        )


def work_entries() -> Iterator[Entry]:
    """Yield the work folders of runs that are in progress or were interrupted."""
    work = work_folder()
    for folder in sorted(path for path in work.glob("*/") if path.is_dir()):
        yield Entry(
            name=f"work/{folder.name}",
            what="a checkpoint: without it, this run starts again from the beginning",
            path=folder,
            size=size_of(folder),
            is_used=lambda folder=folder: is_locked(lock_of(folder)),  # type: ignore[misc]
            remove=lambda folder=folder: _remove(folder, lock_of(folder)),  # type: ignore[misc]
        )


def size_of(folder: Path) -> int:
    """Return the number of bytes in the files of a folder; a file with several names counts once."""
    sizes = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                state = (Path(root) / name).lstat()
            except OSError:  # removed in the meantime
                continue
            sizes[state.st_dev, state.st_ino] = state.st_size
    return sum(sizes.values())


def remove_folder(folder: Path) -> None:
    """Remove a folder; it disappears under its name at once, so that nobody finds a part of it."""
    doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _remove(folder: Path, lock: Path, *more: Path) -> None:
    with FileLock(lock, blocking=False):
        remove_folder(folder)
        for path in more:
            path.unlink(missing_ok=True)
