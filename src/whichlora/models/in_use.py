"""Marks models of a cache as in use by this process, for as long as it lives, so that `whichlora cache` keeps them.

A mark is a shared lock on an empty file in the user's cache, which the system releases however the process ends.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import IO

import platformdirs

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

_marks: dict[str, IO[bytes]] = {}


def mark(name: str) -> None:
    """Mark a model as in use until this process ends; where no lock can be taken, nothing is marked."""
    if fcntl is None or name in _marks:
        return
    path = _lock_file(name)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _marks[name] = file


def is_marked(name: str) -> bool:
    """Return whether a process uses a model, this one included."""
    path = _lock_file(name)
    if fcntl is None or not path.exists():
        return False
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _lock_file(name: str) -> Path:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return platformdirs.user_cache_path("whichlora") / "in-use" / f"{digest}.lock"
