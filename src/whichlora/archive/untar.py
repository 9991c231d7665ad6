"""Extracts an archive of results that is not trusted: only the files that results are made of, up to a total size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from whichlora.models.notices import is_document
from whichlora.tracking.model_files import MLMODEL, models_in, problem_of
from whichlora.tracking.packed import ARTIFACTS
from whichlora.tracking.sqlite import flush

DATABASES = ("mlflow.db", "optuna.db")
SUFFIXES = frozenset(
    [
        ".csv",
        ".html",
        ".jinja",
        ".json",
        ".jsonl",
        ".md",
        ".parquet",
        ".pdf",
        ".png",
        ".safetensors",
        ".svg",
        ".tex",
        ".txt",
        ".yaml",
        ".yml",
    ]
)
"""Kinds of files among the artifacts of runs. None of them is run or unpickled by a program that reads it.

Files of licences may have none. Nor has `MLmodel`; `model_files.problem_of` says whether it is one of this package."""
ARCHIVE_ERRORS = (OSError, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError)
"""Raised for files that are no archive, or a damaged one."""
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}
_CHUNK = 2**20
_BLOCK = 4096
"""Disk space that the smallest file takes."""
_LONGEST_HEADER = 2**20
_RESERVE = 64 * 2**20
"""Bytes that remain free on the disk."""


class RefusedArchiveError(Exception):
    """An archive contains what results do not, or too much; the message says what."""


def is_allowed(name: str) -> bool:
    """Return whether an archive may contain a file of this name, relative to the folder of the database."""
    path = PurePosixPath(name)
    if name in DATABASES:
        return True
    plain = name.isprintable() and "\\" not in name and not any(part.startswith(".") for part in path.parts)
    known = path.suffix.lower() in SUFFIXES or path.name == MLMODEL or is_document(path.name)
    return plain and len(path.parts) > 1 and path.parts[0] in ARTIFACTS and known


def extract(archive: Path, folder: Path, *, limit: int) -> None:
    """Extract an archive into an empty folder, writing each file to the disk.

    Args:
        archive: a tar file, compressed or not.
        folder: the folder, which exists.
        limit: largest total size of the files, in bytes.

    Raises:
        RefusedArchiveError: a member is not a file of results, two have the same name, or the total size exceeds
            `limit`: nothing is extracted beyond that point. Or a model in it is not one of this package.
        ARCHIVE_ERRORS: the archive cannot be read, or the files cannot be written.
    """
    names: set[str] = set()
    size = 0
    with _decompressed(archive) as stream:
        bounded = _Bounded(stream, 2 * limit + _CHUNK)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a long archive would fill the memory
                name = PurePosixPath(member.name).as_posix()
                if member.isdir() and (name == "." or PurePosixPath(name).parts[0] in ARTIFACTS):
                    continue  # folders are created with their files
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not is_allowed(name):
                    missing = "" if DATABASES[0] in names else f", and the archive has no {DATABASES[0]} before it"
                    raise RefusedArchiveError(f"{_shown(member.name)} is not a file that results are made of{missing}")
                if name in names:
                    raise RefusedArchiveError(f"{_shown(name)} is in it twice")
                names.add(name)
                size += max(member.size, _BLOCK)
                if size > limit:
                    raise RefusedArchiveError(
                        f"its files take more than {limit / 2**30:g} GiB; raise limit to allow it"
                    )
                if member.size > shutil.disk_usage(folder).free - _RESERVE:
                    raise RefusedArchiveError(f"there is no space for {_shown(name)}, {member.size / 2**20:.0f} MiB")
                content = tar.extractfile(member)
                assert content is not None
                _write(content, folder / name)
    for path in models_in(folder):
        if problem := problem_of(path):
            raise RefusedArchiveError(f"{_shown(path.relative_to(folder).as_posix())} {problem}")
    if DATABASES[0] not in names:
        raise RefusedArchiveError(f"has no {DATABASES[0]}; must be a file written by `pack`")
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            flush(path)


def _write(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())


def _decompressed(archive: Path) -> Any:
    if not archive.is_file():
        raise FileNotFoundError(f"there is no file {archive}")
    with archive.open("rb") as stream:
        start = stream.read(8)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    return archive.open("rb") if opener is None else opener(archive, "rb")


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


class _Bounded:
    """A stream that refuses to read beyond `limit` bytes, or a long header in one piece."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit = stream, limit

    def read(self, size: int) -> bytes:
        if size > max(_LONGEST_HEADER, _CHUNK):
            raise RefusedArchiveError("it has a header that is too long")
        self._check(self._stream.tell() + size)
        return bytes(self._stream.read(size))

    def seek(self, position: int) -> int:
        self._check(position)
        return int(self._stream.seek(position))

    def tell(self) -> int:
        return int(self._stream.tell())

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise RefusedArchiveError("it is longer than its files may be together; raise limit to allow it")
