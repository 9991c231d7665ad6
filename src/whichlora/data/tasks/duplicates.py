"""Finds repeated items: within a split of a language, and in two of its splits."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from whichlora.data.tasks.base import Split, Task
from whichlora.data.tasks.items import Item

_ORDER: tuple[Split, ...] = ("test", "validation", "train")
"""A repetition is an item of the later of two splits in this order, since it is better to train on fewer items."""


@dataclass(frozen=True)
class Repeat:
    """An item whose texts are those of an item before it in the same split, or of one in a split that is scored.

    Attributes:
        split, position: where it is.
        of: the split of the item that it repeats: the same, or `test` or `validation`.
        differs: whether the two have no accepted answer in common.
    """

    split: Split
    position: int
    of: Split
    differs: bool


def normalized(text: str) -> str:
    """Return a text in Unicode NFC, without distinction of case, with single spaces between words."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def repeats(task: Task, items: Mapping[Split, Sequence[Item]]) -> Iterator[Repeat]:
    """Yield the repeated items of one language, by its splits; texts are compared after `normalized`."""
    seen: dict[int, tuple[Split, frozenset[str]]] = {}
    for split in _ORDER:
        for position, item in enumerate(items.get(split, ())):
            # Digests take less memory than texts: the hub has splits of 400,000 items.
            digest = hash(tuple(map(normalized, task.texts(item).values())))
            answers = frozenset(map(normalized, task.gold(item)))
            if digest in seen:
                of, others = seen[digest]
                yield Repeat(split, position, of, differs=answers.isdisjoint(others))
            else:
                seen[digest] = split, answers


def counted(found: Iterable[Repeat]) -> list[str]:
    """Return a phrase for each pair of splits with repeated items, such as "3 train items repeat test items"."""
    entries = list(found)
    counts = Counter((entry.split, entry.of) for entry in entries)
    differing = Counter((entry.split, entry.of) for entry in entries if entry.differs)
    phrases = []
    for (split, of), count in counts.items():
        other = "other " if split == of else ""
        text = f"{count:,} {split} items repeat {other}{of} items"
        if count == 1:
            text = f"1 {split} item repeats {'another' if other else 'a'} {of} item"
        different = differing[split, of]
        phrases.append(f"{text} ({different:,} with another answer)" if different else text)
    return phrases
