"""Reads a split of a dataset from the Hugging Face hub, from its cache or from a folder with a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whichlora.errors import OptionError, first_line, is_folder
from whichlora.hub_access import announce_cached, hub_problem, retried

if TYPE_CHECKING:
    from datasets import Dataset


def read_split(source: str, split: str, *, revision: str | None = None, **place: str | None) -> Dataset:
    """Return a split of a dataset.

    Args:
        source: the dataset's name, or the folder of a copy.
        place: `name` of the config, or `data_dir` within the repository.

    Raises:
        OptionError: the dataset cannot be read; the message suggests a local folder.
    """
    is_copy = is_folder(Path(source))
    problem = None if is_copy else hub_problem()  # before the library is imported, which takes over the answer
    import datasets

    try:
        found: Dataset = retried(
            lambda: datasets.load_dataset(source, split=split, revision=revision, **place), f"{source} {split}"
        )
    except Exception as error:  # many types, from a dataset that was moved to a damaged file
        reason, advice = first_line(error), "set data_dir to a folder with the data"
        if problem:
            reason = f"{problem}; its cache has no copy"
            advice = f"choose a packaged task, such as atlas-nli, set HF_ENDPOINT to a mirror, or {advice}"
        raise OptionError(
            "data_dir", "auto", f"{source} cannot be read{'' if is_copy else ' from the hub'} ({reason}); {advice}"
        ) from error
    if problem:
        announce_cached(source)
    return found
