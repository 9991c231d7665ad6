"""Finds the models and datasets that the Hugging Face libraries have cached, for this project or for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from whichlora.cache.entries import Entry, remove_folder, size_of
from whichlora.models import in_use
from whichlora.parallel.locks import is_locked

_TYPES = ("model", "dataset")


def hub_entries() -> Iterator[Entry]:
    """Yield the models and datasets in the cache of huggingface_hub, as `scan_cache_dir` finds them."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        found = scan_cache_dir()
    except CacheNotFound:
        return
    for repo in sorted(found.repos, key=lambda repo: (repo.repo_type, repo.repo_id)):
        if repo.repo_type in _TYPES:
            yield Entry(
                name=f"{repo.repo_type}/{repo.repo_id}",
                what=f"a {repo.repo_type} of the hub, also for other programs",
                path=repo.repo_path,
                size=repo.size_on_disk,
                is_used=lambda repo=repo: _is_used(repo),  # type: ignore[misc]
                remove=lambda repo=repo: _remove(found, repo),  # type: ignore[misc]
            )


def _is_used(repo: Any) -> bool:
    """Return whether a command uses the model, or a process is downloading a file of the repository."""
    downloads = repo.repo_path.parent / ".locks" / repo.repo_path.name
    marked = repo.repo_type == "model" and in_use.is_marked(repo.repo_id)
    return marked or any(map(is_locked, downloads.rglob("*.lock")))


def _remove(found: Any, repo: Any) -> None:
    revisions = [revision.commit_hash for revision in repo.revisions]
    if revisions:
        # Commits are looked up in all repositories, and a copy of one on the hub has the same commits.
        replace(found, repos=frozenset({repo})).delete_revisions(*revisions).execute()
    if repo.repo_path.exists():  # without a revision, as after an interrupted download
        remove_folder(repo.repo_path)


def prepared_entries() -> Iterator[Entry]:
    """Yield the tables into which the library `datasets` has converted datasets."""
    from datasets import config

    cache = Path(config.HF_DATASETS_CACHE)
    for folder in sorted(path for path in cache.glob("*/") if path.is_dir()):
        yield Entry(
            name=f"prepared/{folder.name.replace('___', '/')}",
            what="a dataset converted by the library datasets, also for other programs",
            path=folder,
            size=size_of(folder),
            is_used=lambda folder=folder: any(map(is_locked, _locks(folder))),  # type: ignore[misc]
            remove=lambda folder=folder: remove_folder(folder),  # type: ignore[misc]
        )


def _locks(folder: Path) -> Iterator[Path]:
    """Yield the lock files of a dataset, which are in its folder and, named after its path, beside it."""
    yield from folder.rglob("*.lock")
    yield from folder.parent.glob(f"{folder.as_posix().replace('/', '_')}_*.lock")
