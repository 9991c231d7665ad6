"""Reads `xnli` and `tydiqa` in the layouts in which they are distributed, which the YAML files of this folder declare.

The tasks themselves are written in Python, and read folders of one file per language and split with `files`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Literal

from whichlora.data.tasks.base import Split
from whichlora.data.tasks.files import Row
from whichlora.data.tasks.items import Item
from whichlora.errors import OptionError

if TYPE_CHECKING:
    from whichlora.data.tasks.declared.splits import Reader


def is_found(name: str, data_dir: str) -> bool:
    """Return whether a folder has one of the layouts that NAME.yaml declares."""
    try:
        return bool(_reader(name).place(data_dir))
    except OptionError:
        return False


def has(name: str, language: str, split: Split, data_dir: str) -> bool:
    """Return whether a folder, which has one of the layouts, has a split in a language."""
    return _reader(name).has(language, split, data_dir)


def items(name: str, language: str, split: Split, data_dir: str) -> Sequence[Item]:
    """Return the items of a split in one language; empty if there are none.

    Raises:
        OptionError: the data is missing or cannot be used; the message names file and line.
    """
    return [entry.item for entry in _reader(name).entries(language, split, data_dir) or ()]


def origin(name: str, language: str, split: Split, data_dir: str) -> dict[str, str]:
    """Return the SHA-256 of each file from which the items of a split are, by its path."""
    return _reader(name).origin(language, split, data_dir)


def rows(name: str, language: str, split: Split | Literal["all"], data_dir: str) -> list[Row]:
    """Return the rows of a split in one language, with the names of the fields; none if there is no such split.

    Raises:
        OptionError: the data is missing or malformed; the message names file and line.
    """
    from whichlora.data.tasks.declared import reading
    from whichlora.data.tasks.declared.columns import lookup

    reader = _reader(name)
    if not reader.has(language, split, data_dir):
        return []
    found = reading.rows(reader.declaration, reader.place(data_dir), language, split)
    selected = []
    if found is None:
        return []
    for record in found.records:
        if record.problem:
            Row(data_dir, record.location, {}).fail(record.problem)
        has = [name for name, column in found.fields.items() if reading.has_column(record, column)]
        values = {name: lookup(record.values, found.fields[name]) for name in has}
        selected.append(Row(data_dir, record.location, values))
    return selected


@functools.cache
def _reader(name: str) -> Reader:
    from whichlora.data.tasks.declared.declaration import Declaration  # with pydantic, which other layouts do not need
    from whichlora.data.tasks.declared.splits import Reader
    from whichlora.yaml_files import read_document

    with as_file(files(__package__) / f"{name}.yaml") as path:
        return Reader(read_document("task", path, scalar_keys=True).parse(Declaration), None)
