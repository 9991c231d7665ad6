"""Says what a command is about to do where that takes some seconds, so that nobody waits for a silent terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from whichlora.errors import printable

_PATIENCE = 1.5
"""Seconds after which `announced` says what takes so long."""
_said: set[str] = set()


def announce(text: str, *, key: str | None = None, file: TextIO | None = None) -> None:
    """Print a line that is not empty, once in a process: in a grid of runs the progress bar shows the repetitions.

    Workers, whose progress bars are off too, print nothing.

    Args:
        key: identifies lines that stand for one another; by default the text.
        file: where to print, by default stdout. A command whose output other programs read prints to stderr.
    """
    if not text or (key or text) in _said or os.environ.get("TQDM_DISABLE") == "1":
        return
    _said.add(key or text)
    from tqdm import tqdm  # prints above a progress bar

    tqdm.write(printable(text), file=file or sys.stdout)
    (file or sys.stdout).flush()


@contextmanager
def announced(text: str, *, file: TextIO | None = None) -> Iterator[None]:
    """Announce what the block does once it has taken `_PATIENCE` seconds, so that an error in it comes alone."""
    timer = threading.Timer(_PATIENCE, announce, (text,), {"file": file})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
