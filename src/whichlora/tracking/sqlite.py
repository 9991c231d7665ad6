"""SQLite databases of MLflow: where they lie, and the lock for creating their schema."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock


def file_of(uri: str) -> Path | None:
    """Return the file of a tracking database that is SQLite, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def path_of(uri: str) -> Path | None:
    """Return the folder that a URI or path of artifacts stands for; None if it is none of this machine's."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return Path(unquote(parts.path) if parts.scheme else uri).absolute()


def lock_of(file: Path) -> FileLock:
    """Return the lock under which a schema is made: two processes at once would leave it half made for good."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")
