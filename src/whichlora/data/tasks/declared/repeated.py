"""Leaves out repeated items of a declared task, if its declaration says so."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

from whichlora.data.tasks.base import SPLITS, Split, Task
from whichlora.data.tasks.declared.splits import Entries, Reader
from whichlora.data.tasks.duplicates import counted, repeats
from whichlora.errors import OptionError


@functools.lru_cache(maxsize=64)
def entries_of(task: Task, reader: Reader, language: str, split: Split, data_dir: str | None) -> Entries | None:
    """Return the items of a split with their groups, without repeated ones if `deduplicate` is true.

    None if there is no such split in this language.

    Raises:
        OptionError: the data is missing or cannot be used.
    """
    entries = reader.entries(language, split, data_dir)
    if entries is None or not reader.declaration.deduplicate:
        return entries
    dropped = _repeated(task, reader, None if task.parallel else language, data_dir)[split]
    kept = (entry for position, entry in enumerate(entries) if position not in dropped)
    return tuple(replace(entry, item=replace(entry.item, index=index)) for index, entry in enumerate(kept))


@functools.lru_cache(maxsize=64)
def _repeated(task: Task, reader: Reader, language: str | None, data_dir: str | None) -> dict[Split, set[int]]:
    """Return the positions of repeated items by split, and warn of their number.

    Args:
        language: where they are repeated; None for all languages of a parallel task, which leave out equal positions.
    """
    dropped: dict[Split, set[int]] = {split: set() for split in SPLITS}
    for code in task.languages if language is None else [language]:
        try:
            items = {s: [e.item for e in reader.entries(code, s, data_dir) or ()] for s in SPLITS}
        except OptionError:
            if language is not None:
                raise
            continue  # a folder may lack languages of the task
        found = list(repeats(task, items))
        for repeat in found:
            dropped[repeat.split].add(repeat.position)
        if found:
            text = "; ".join(counted(found))
            warnings.warn(f"{task.name}: left out in {code}, since `deduplicate` is true: {text}", stacklevel=2)
    return dropped
