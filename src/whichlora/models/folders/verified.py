"""Records the files of a folder whose content was verified, and detects changes and damage since then.

The record lies beside the folder. Sizes, times and inodes show in a moment whether a file was written; the digests show
also what a disk lost, but take as long as reading the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from whichlora.errors import OptionError


def record(folder: Path) -> None:
    """Record the state and the SHA-256 of each file; where the record cannot be written, there is none."""
    files = {name: {"state": state, "sha256": sha256(folder / name)} for name, state in _states(folder).items()}
    partial = record_path(folder).with_suffix(".partial")
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(files), encoding="utf-8")
        partial.replace(record_path(folder))


def is_unchanged(folder: Path) -> bool:
    """Return whether the folder has a record and no file was added, removed or written since."""
    try:
        states = {name: entry["state"] for name, entry in json.loads(record_path(folder).read_bytes()).items()}
        return states == _states(folder)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return False


@lru_cache(maxsize=4)
def check_recorded_files(name: str, folder: Path) -> None:
    """Check the content of the files of the model `name`, if its folder has a record. Reads all of them.

    Raises:
        OptionError: files are damaged.
    """
    if not is_unchanged(folder):
        return
    recorded = json.loads(record_path(folder).read_bytes())
    if damaged := [file for file, entry in recorded.items() if sha256(folder / file) != entry["sha256"]]:
        raise OptionError("model", name, f"{', '.join(damaged)} in {folder} is damaged; delete this folder")


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder without hidden ones, such as macOS's .DS_Store."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Write the files of a folder to disk."""
    for path in folder.iterdir():
        fsync(path)
    fsync(folder)


def fsync(path: Path) -> None:
    """Write a file, or the entries of a folder, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def record_path(folder: Path) -> Path:
    """Return the file with the record of a folder."""
    return folder.with_name(f"{folder.name}.verified.json")


def _states(folder: Path) -> dict[str, list[int]]:
    stats = {path.name: path.stat() for path in visible(folder)}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in sorted(stats.items())}
