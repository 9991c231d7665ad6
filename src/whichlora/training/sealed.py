"""Stores records as JSON with digests of themselves and of the files that they vouch for, so that damage shows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from whichlora.config.spec import canonical_digest
from whichlora.errors import DamagedError
from whichlora.models.folders.verified import fsync, sha256

_FILES, _DIGEST = "files", "digest"


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder and its subfolders."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_record(path: Path, value: Mapping[str, Any], *, files: Iterable[Path] = ()) -> None:
    """Write `value` as JSON, with the digests of `files`, once those are on the disk.

    The record replaces an earlier one in one step. The files must lie below the folder of the record.
    """
    digests = {}
    for file in files:
        fsync(file)
        digests[file.relative_to(path.parent).as_posix()] = sha256(file)
    for folder in {(path.parent / name).parent for name in digests}:
        fsync(folder)
    record = {**value, _FILES: digests}
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({**record, _DIGEST: canonical_digest(record)}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    fsync(path.parent)


def read_record(path: Path) -> dict[str, Any]:
    """Read a record without its digests, and check it, but not its files.

    Raises:
        DamagedError: The record is damaged or missing.
    """
    record = _read(path)
    del record[_FILES]
    return record


def read_checked(path: Path) -> dict[str, Any]:
    """Read a record without its digests, and check it and its files.

    Raises:
        DamagedError: The record or one of its files is damaged or missing.
    """
    record = _read(path)
    for name, digest in record.pop(_FILES).items():
        file = path.parent / name
        try:
            intact = sha256(file) == digest
        except OSError:
            intact = False
        if not intact:
            raise DamagedError(file)
    return record


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        digest = record.pop(_DIGEST)
        if canonical_digest(record) == digest:
            return dict(record)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        pass
    raise DamagedError(path)
