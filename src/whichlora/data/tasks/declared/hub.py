"""Reads datasets of the Hugging Face hub, from the hub, from the local cache or from a folder with a copy."""

from __future__ import annotations

import functools
from pathlib import Path

from whichlora.data.hub_datasets import read_split
from whichlora.data.tasks.declared.tables import Record, Table
from whichlora.errors import is_file

CONVERTED = "refs/convert/parquet"
"""Branch of datasets on the hub that a program converts to Parquet; loading scripts are not executed any more."""


def is_copy(folder: Path) -> bool:
    """Return whether a folder looks like a copy of a dataset's repository, of which `datasets` finds the files."""
    card = folder / "README.md"
    return is_file(card) and "configs:" in card.read_text(encoding="utf-8", errors="replace")


@functools.lru_cache(maxsize=4)
def table(source: str, config: str | None, split: str, revision: str | None) -> Table:
    """Return the rows of a split of a dataset.

    Args:
        source: the dataset's name, or the folder of a copy.
        revision: of the branch that the hub converts to Parquet, the configs are folders.

    Raises:
        OptionError: the dataset cannot be read; the message suggests a local folder.
    """
    place = {"data_dir": config} if revision == CONVERTED else {"name": config}
    found = read_split(source, split, revision=revision, **place)
    classes = {column: names for column, kind in found.features.items() if (names := getattr(kind, "names", None))}
    title = " ".join(part for part in (config, split) if part)
    return Table(
        f"{source} {title}",
        f"dataset{f', revision {revision}' if revision else ''}",
        "",
        [Record(f"{title} row {n}", row) for n, row in enumerate(found, 1)],
        classes,
    )
