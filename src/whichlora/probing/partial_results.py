"""Stores the measurements of a probe on disk in parts, so that a killed probe can resume."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

PART_ITEMS = 32
"""Number of items in a part; at most one part is lost when a probe is killed."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class PartialResults:
    """Results for `count` items in a folder, one file of named arrays per part; files are written atomically.

    A part that is damaged counts as missing.
    """

    folder: Path
    count: int
    _intact: set[int] = field(default_factory=set, init=False)

    @property
    def complete(self) -> bool:
        """Whether every part has been measured."""
        return all(self._is_intact(index) for index, _ in enumerate(self._ranges()))

    def fill(self, measure: Callable[[range], Arrays], *, description: str) -> None:
        """Call `measure` with the item indices of each missing part and write the arrays that it returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=self.count, desc=description, unit="item") as bar:
            for index, items in enumerate(self._ranges()):
                if not self._is_intact(index):
                    self._write(index, measure(items))
                bar.update(len(items))

    def read(self, name: str) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the array `name` of each part, in order, without reading the other arrays."""
        for index, _ in enumerate(self._ranges()):
            with np.load(self._path(index), allow_pickle=False) as arrays:
                yield arrays[name]

    def gather(self, name: str, path: Path) -> np.ndarray[Any, Any]:
        """Write the array `name` of all parts to the file `path` and return it memory-mapped, (count, ...).

        An existing file is unlinked rather than overwritten, because it may still be mapped.
        """
        path.unlink(missing_ok=True)
        gathered, start = np.empty(0), 0
        for part in self.read(name):
            if not start:
                gathered = np.lib.format.open_memmap(path, "w+", part.dtype, (self.count, *part.shape[1:]))
            gathered[start : start + len(part)] = part
            start += len(part)
        return gathered

    def _ranges(self) -> list[range]:
        return [range(i, min(i + PART_ITEMS, self.count)) for i in range(0, self.count, PART_ITEMS)]

    def _path(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}.npz"

    def _is_intact(self, index: int) -> bool:
        """Return whether a part is complete; delete a damaged one, with a warning."""
        path = self._path(index)
        if index not in self._intact and path.is_file():
            try:
                with zipfile.ZipFile(path) as arrays:
                    damaged = arrays.testzip() is not None
            except Exception:  # which one depends on the damaged byte
                damaged = True
            if damaged:
                print(f"warning: {path} is damaged: its items are measured again.", file=sys.stderr)
                path.unlink()
            else:
                self._intact.add(index)
        return path.is_file()

    def _write(self, index: int, arrays: Arrays) -> None:
        partial = self._path(index).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # the stub mistakes the names for keyword parameters
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path(index))
