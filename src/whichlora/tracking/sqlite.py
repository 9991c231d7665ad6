"""Locates the SQLite databases of MLflow and locks them while their schema is created."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite tracking URI; None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def artifact_folder(uri: str) -> Path | None:
    """Return the local folder of an artifact URI or path; None if it is not on this machine."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return Path(unquote(parts.path) if parts.scheme else uri).absolute()


def schema_lock(file: Path) -> FileLock:
    """Return the lock for creating the schema, which two processes at once would leave permanently incomplete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")
