"""Identifies a saved model by its files, or by what they hold."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from whichlora.announcements import announced
from whichlora.errors import OptionError, is_file, is_folder

_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt")
_PROBE = "Kenya iko Afrika mashariki.\n\n 47 काउंटी، کینیا  2024 কেনিয়া కెన్యా<|im_end|>"


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the files of a saved model and its tokenizer.

    Raises:
        OptionError: see `model_files`.
    """
    with announced(f"Computing the digest of {folder}.", logged=True):
        return _digest(tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in model_files(folder)))


def model_files(folder: Path) -> list[Path]:
    """Return the files of a saved model and its tokenizer, sorted.

    Raises:
        OptionError: the folder or a file cannot be read, or what has the name of a file is not one: reading a pipe, for
            example, would wait for ever.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise OptionError("model", folder, f"the folder cannot be read: {error.strerror}") from error
    files = [path for path in paths if path.suffix in _SUFFIXES]
    for path in paths:
        if not is_file(path) and (path in files or (path.exists() and not is_folder(path))):
            raise OptionError("model", folder, f"{path.name} in the folder is not a file")
    for path in files:
        if not os.access(path, os.R_OK):
            raise OptionError("model", folder, f"{path.name} in the folder cannot be read by this user")
    return files


@lru_cache(maxsize=4)
def _digest(file_stats: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the digest; sizes and times of the files are part of the cache key only."""
    digest = hashlib.sha256()
    for path, _, _ in file_stats:
        with path.open("rb") as file:
            digest.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return digest.hexdigest()


def content_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) over a converted folder's tensors, vocabulary and the token ids of a probe text.

    It does not cover the bytes of the files, whose layout may differ between versions of the libraries that write them.
    """
    from safetensors import safe_open
    from tokenizers import Tokenizer

    digest = hashlib.sha256()
    with safe_open(folder / "model.safetensors", framework="np") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(tensor.data)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.encode(_PROBE).ids]).encode())
    return digest.hexdigest()
