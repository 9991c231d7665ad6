"""Finds a model on the Hugging Face hub or in its cache, and verifies cached files by the digests in their names."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from whichlora.announcements import announce, announced
from whichlora.errors import OptionError, first_line
from whichlora.hub_access import announce_cached, hub_problem, retried
from whichlora.models.checks import ADAPTER_FOUND
from whichlora.models.packaged import packaged_names

_ALLOWED = f"allowed are {packaged_names()}, a folder with a saved model, a GGUF file, or a hub id that can be reached"
_OFFLINE = "give a folder, or set HF_ENDPOINT to a mirror or HF_HUB_CACHE to a cache that has it"
_SHA256, _GIT_SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@lru_cache(maxsize=4)
def find_commit(name: str) -> str:
    """Return the commit of a model on the hub, or in its cache if the hub cannot be reached.

    Raises:
        OptionError: the model is in neither, or the repository holds an adapter.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    from transformers.utils.hub import extract_commit_hash

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise OptionError(
            "model", name, f"{_ALLOWED} (there is no such folder, and it is not a valid hub id)"
        ) from error
    problem = hub_problem()
    try:
        with announced(f"Looking up {name} on the hub."):
            adapter, config = retried(lambda: _files_to_know(name), name)
            commit: str | None = extract_commit_hash(adapter or config, None)
    except Exception as error:  # the libraries raise many types of exceptions
        reason = f"{problem}; its cache has no such model; {_OFFLINE}" if problem else first_line(error)
        raise OptionError("model", name, f"{_ALLOWED} ({reason})") from error
    if adapter is not None:
        raise OptionError("model", name, f"the repository {ADAPTER_FOUND}")
    if commit is None:
        raise OptionError("model", name, _ALLOWED)
    announce_cached(name)
    return commit


def _files_to_know(name: str) -> tuple[str | None, str | None]:
    """Return the paths of a repository's adapter_config.json, if any, and otherwise of its config.json."""
    from transformers.utils import cached_file, find_adapter_config_file

    adapter = find_adapter_config_file(name)
    return adapter, None if adapter else cached_file(name, "config.json")


@lru_cache(maxsize=4)
def check_cached_files(name: str, commit: str) -> None:
    """Check the content of a model's files that are in the cache.

    Each is a link to a file whose name is the digest of its content: SHA-256 for large files, git's for small ones.
    Where the file system has no links, nothing is checked.

    Raises:
        OptionError: a file is damaged.
    """
    from transformers.utils import cached_file

    announce(f"Checking the files of {name} in the cache.")
    config = cached_file(name, "config.json", revision=commit)
    for path in sorted(Path(config).parent.rglob("*")):
        if path.is_symlink() and path.is_file():
            blob = path.resolve()
            if _digest_like(blob) != blob.name:
                raise OptionError("model", name, f"{path.name} in the cache is damaged; delete {blob}")


def _digest_like(blob: Path) -> str:
    """Return the digest of a file of the kind that its name is; its name if that is no digest."""
    with blob.open("rb") as file:
        if _SHA256.fullmatch(blob.name):
            return hashlib.file_digest(file, "sha256").hexdigest()
        if _GIT_SHA1.fullmatch(blob.name):
            content = file.read()
            return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return blob.name
