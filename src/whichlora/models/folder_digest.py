"""Identifies a saved model by the content of its files."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the files of a saved model and its tokenizer."""
    suffixes = (".json", ".safetensors", ".bin", ".model", ".txt")
    paths = [p for p in sorted(folder.iterdir()) if p.suffix in suffixes and p.is_file()]
    return _digest(tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in paths))


@lru_cache(maxsize=4)
def _digest(file_stats: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the digest; sizes and times of the files are part of the cache key only."""
    digest = hashlib.sha256()
    for path, _, _ in file_stats:
        with path.open("rb") as file:
            digest.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return digest.hexdigest()
