"""Reads datasets of the Hugging Face hub, from the hub, from the local cache or from a folder with a copy."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from whichlora.data.tasks.declared.tables import Record, Table
from whichlora.errors import OptionError, first_line, is_file


def is_copy(folder: Path) -> bool:
    """Return whether a folder looks like a copy of a dataset's repository, of which `datasets` finds the files."""
    card = folder / "README.md"
    return is_file(card) and "configs:" in card.read_text(encoding="utf-8", errors="replace")


@functools.lru_cache(maxsize=4)
def table(
    source: str, config: str | None, split: str, revision: str | None, answer: str, labels: frozenset[str]
) -> Table:
    """Return the rows of a split of a dataset.

    Args:
        source: the dataset's name, or the folder of a copy.
        answer: the column of the label, whose numbers become names where `labels` has these.

    Raises:
        OptionError: the dataset cannot be read; the message suggests a local folder.
    """
    import datasets

    try:
        found = datasets.load_dataset(source, config, split=split, revision=revision)
    except Exception as error:  # many types, from a missing network to a dataset that was moved
        message = f"{source} cannot be read ({first_line(error)}); set data_dir to a folder with the data"
        raise OptionError("data_dir", "auto", message) from error
    names = getattr(found.features.get(answer), "names", None)
    decode = names and labels.intersection(names) and not labels & {str(n) for n in range(len(names))}
    title = " ".join(part for part in (config, split) if part)
    return Table(
        " ".join(part for part in (source, config, split) if part),
        f"dataset{f', revision {revision}' if revision else ''}",
        "",
        [Record(f"{title} row {n}", _named(row, answer, names if decode else None)) for n, row in enumerate(found, 1)],
    )


def _named(row: dict[str, Any], answer: str, names: list[str] | None) -> dict[str, Any]:
    if names and isinstance(number := row[answer], int) and 0 <= number < len(names):
        return {**row, answer: names[number]}
    return row
