"""Reads datasets of the Hugging Face hub, from the hub, from the local cache or from a folder with a copy."""

from __future__ import annotations

import functools
from pathlib import Path

from whichlora.data.tasks.declared.tables import Record, Table
from whichlora.errors import OptionError, first_line, is_file

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
    import datasets

    place = {"data_dir": config} if revision == CONVERTED else {"name": config}
    try:
        found = datasets.load_dataset(source, split=split, revision=revision, **place)
    except Exception as error:  # many types, from a missing network to a dataset that was moved
        message = f"{source} cannot be read ({first_line(error)}); set data_dir to a folder with the data"
        raise OptionError("data_dir", "auto", message) from error
    classes = {column: names for column, kind in found.features.items() if (names := getattr(kind, "names", None))}
    title = " ".join(part for part in (config, split) if part)
    return Table(
        f"{source} {title}",
        f"dataset{f', revision {revision}' if revision else ''}",
        "",
        [Record(f"{title} row {n}", row) for n, row in enumerate(found, 1)],
        classes,
    )
