"""Provides models of GGUF files, `model=FILE.gguf`, in the user's cache: each is converted once, by transformers.

A conversion is found by the SHA-256 of the file. The model is identified by the content of the conversion, so that runs
on two machines agree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from whichlora.announcements import announced
from whichlora.errors import OptionError
from whichlora.models.folders import created, verified
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.folders.digests import content_digest

SUFFIX = ".gguf"
INFO = "gguf.json"
"""File of a conversion that says of what file it is one, and holds the digest of its content."""
FORMAT_VERSION = 1
"""Part of the folder's name. Increase it when the conversion changes, so that old folders are not used."""


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """The conversion of a GGUF file.

    Attributes:
        digest: SHA-256 (hex) of its content.
    """

    folder: Path
    digest: str


def conversions_folder() -> Path:
    """Return the folder in which all conversions are."""
    import platformdirs

    return platformdirs.user_cache_path("whichlora") / "gguf"


def mark_of(folder: Path) -> str:
    """Return the name under which a conversion is marked as in use."""
    return f"gguf/{folder.name}"


def converted(name: str, file: Path) -> ConvertedFile:
    """Return the conversion of a GGUF file, creating it if it is missing or damaged.

    Args:
        name: the value of the option `model`, for messages.

    Raises:
        OptionError: the file is no GGUF file of a language model that transformers reads, or cannot be converted.
    """
    from whichlora.models.gguf.transformers_reader import write_conversion

    try:
        state = file.stat()
        with announced(f"Computing the digest of {file}.", logged=True):
            sha256 = _sha256(file, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise OptionError("model", name, f"the file cannot be read: {error.strerror}") from error
    folder = conversions_folder() / f"{sha256[:16]}-{FORMAT_VERSION}"
    write = partial(_write, name=name, file=file, sha256=sha256, convert=write_conversion)
    try:
        created.provide(folder, name=file.name, is_intact=is_intact, write=write)
    except NotCreatedError as error:
        raise OptionError("model", name, str(error)) from error
    return ConvertedFile(folder=folder, digest=str(_info(folder)["digest"]))


def is_intact(folder: Path) -> bool:
    """Return whether a conversion holds the content that it had. Reads all of it."""
    try:
        info = _info(folder)
        if {path.name for path in verified.visible(folder)} != {INFO, "model.safetensors", *info["files"]}:
            return False
        if any(verified.sha256(folder / name) != sha256 for name, sha256 in info["files"].items()):
            return False
        return _digest(folder) == str(info["digest"])
    except Exception:  # what cannot be read is damaged; the libraries raise many types
        return False


def file_name_of(folder: Path) -> str:
    """Return the name of the file of which a folder is a conversion; empty if it does not say so."""
    try:
        return str(_info(folder)["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def licence_of(folder: Path) -> str | None:
    """Return the licence that the metadata of a converted file states; None if it states none."""
    licence = _info(folder)["licence"]
    return licence if isinstance(licence, str) and licence.isprintable() else None


@lru_cache(maxsize=4)
def _sha256(file: Path, size: int, modified: int) -> str:
    """Return the digest; size and time of the file are part of the cache key only."""
    return verified.sha256(file)


def _write(work: Path, folder: Path, *, name: str, file: Path, sha256: str, convert: Any) -> None:
    licence = convert(name, file, work, folder)
    files = {path.name: verified.sha256(path) for path in folder.iterdir() if path.name != "model.safetensors"}
    info = {"file": file.name, "sha256": sha256, "licence": licence, "digest": _digest(folder), "files": files}
    (folder / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _digest(folder: Path) -> str:
    """Return the digest of weights, vocabulary and configuration, without the version of transformers."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")}
    settings = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    text = json.dumps([content_digest(folder), kept, json.loads(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _info(folder: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((folder / INFO).read_text(encoding="utf-8"))
    return info
