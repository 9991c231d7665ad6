"""Finds what this project has stored: converted models, downloaded predictions, checkpoints of unfinished runs."""

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
from whichlora.models.folders.created import MAKING, lock_file
from whichlora.models.folders.verified import record_path
from whichlora.models.gguf import files as gguf_files
from whichlora.models.packaged import CATALOGUE, packaged_model_folder
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
    for folder in sorted(cache.glob("*/")):
        # The longest name, because one may begin with another.
        if found := max((name for name in CATALOGUE if folder.name.startswith(f"{name}-")), key=len, default=""):
            yield _packaged(found, folder)
    for folder in sorted(gguf_files.conversions_folder().glob("*/")):
        yield _converted(folder)
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


def _packaged(model: str, folder: Path) -> Entry:
    """Return the folder of a packaged model, of an earlier version of it, or of an interrupted conversion."""
    current = packaged_model_folder(model)
    if folder == current:
        name, what = model, "a packaged model, converted; downloaded again when needed"
    elif MAKING in folder.name:
        name, what = folder.name, "an interrupted conversion of a packaged model"
    else:
        name, what = folder.name, "a packaged model of another version"
    return _model(name, what, folder, mark=model)


def _converted(folder: Path) -> Entry:
    """Return the conversion of a GGUF file, or an interrupted one."""
    if MAKING in folder.name:
        what = "an interrupted conversion of a GGUF file"
    else:
        what = f"a conversion of {gguf_files.file_name_of(folder) or 'a GGUF file'}; converted again when needed"
    complete = folder.with_name(folder.name.partition(MAKING)[0])
    return _model(gguf_files.mark_of(folder), what, folder, mark=gguf_files.mark_of(complete))


def _model(name: str, what: str, folder: Path, *, mark: str) -> Entry:
    lock = lock_file(folder.with_name(folder.name.partition(MAKING)[0]))
    return Entry(
        name=name,
        what=what,
        path=folder,
        size=size_of(folder),
        is_used=lambda: in_use.is_marked(mark) or is_locked(lock),
        remove=lambda: _remove(folder, lock, record_path(folder)),
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
