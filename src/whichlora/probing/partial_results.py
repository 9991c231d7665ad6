"""Keeps what was measured of a batch of items on disk, so that a killed probe goes on from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

PART_ITEMS = 32
"""Items in a part: what a kill can lose."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class PartialResults:
    """The parts of `count` items in a folder. Each is a file of named arrays that is either whole or not there."""

    folder: Path
    count: int

    @property
    def complete(self) -> bool:
        """Whether every part is there."""
        return all(self._path(index).is_file() for index, _ in enumerate(self._ranges()))

    def measure(self, work: Callable[[range], Arrays], *, name: str) -> None:
        """Call `work` with the positions of each part that is not there, and write what it returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=self.count, desc=name, unit="item") as bar:
            for index, positions in enumerate(self._ranges()):
                if not self._path(index).is_file():
                    self._write(index, work(positions))
                bar.update(len(positions))

    def read(self, name: str) -> Iterator[np.ndarray[Any, Any]]:
        """Yield one array of each part, in order, without reading the part's others."""
        for index, _ in enumerate(self._ranges()):
            with np.load(self._path(index), allow_pickle=False) as arrays:
                yield arrays[name]

    def gather(self, name: str, path: Path) -> np.ndarray[Any, Any]:
        """Return one array of all parts, (count, ...), mapped from the file `path`, to which it is written.

        A file that was there, and may still be mapped, is let go of and not written over.
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

    def _write(self, index: int, arrays: Arrays) -> None:
        partial = self._path(index).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # its stub takes the names for its own
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path(index))
