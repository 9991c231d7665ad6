"""Says what a folder contains, for messages about one that does not fit."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_SHOWN, _SCANNED, _DEPTH = 10, 2000, 3


@dataclass(frozen=True)
class Contents:
    """The names of the files in a folder, relative to it and sorted; `more` says that there are others."""

    names: tuple[str, ...]
    more: bool

    def __str__(self) -> str:
        if not self.names:
            return "it is empty"
        rest = len(self.names) - _SHOWN
        others = f" and {'more than ' * self.more}{rest} more" if rest > 0 else ""
        return f"it has {', '.join(self.names[:_SHOWN])}{others}"


def contents(folder: Path) -> Contents:
    """Return the files of a folder and of its subfolders, at most three levels deep and 2,000 in number."""
    found = list(islice(_walk(folder), _SCANNED + 1))
    return Contents(tuple(sorted(found[:_SCANNED])), len(found) > _SCANNED)


def nearest(expected: Sequence[str], names: Sequence[str]) -> str:
    """Return which of the files is most like one that is expected, as an addition to a message; empty if none is."""
    pairs = [
        (difflib.SequenceMatcher(None, wanted, match).ratio(), match, wanted)
        for wanted in expected
        for match in difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    ]
    if not pairs:
        return ""
    _, match, wanted = max(pairs)
    return f" (is {match} meant to be {wanted}?)"


def _walk(folder: Path) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        depth = len(Path(path).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < _DEPTH - 1 else []
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.relpath(Path(path) / name, folder)
