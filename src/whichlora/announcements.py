"""Says what a command is about to do where that takes some seconds, so that nobody waits for a silent terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from whichlora.errors import printable

_PATIENCE = 1.5
"""Seconds after which `announced` says what takes so long."""
_said: set[str] = set()


def announce(text: str, *, key: str | None = None) -> None:
    """Print a line to stderr, unless it is empty, once in a process: in a grid the progress bar shows the repetitions.

    Workers, whose progress bars are off too, print nothing.

    Args:
        key: identifies lines that stand for one another; by default the text.
    """
    if not text or (key or text) in _said or os.environ.get("TQDM_DISABLE") == "1":
        return
    _said.add(key or text)
    from tqdm import tqdm  # prints above a progress bar

    tqdm.write(printable(text), file=sys.stderr)
    sys.stderr.flush()


@contextmanager
def announced(text: str) -> Iterator[None]:
    """Announce what the block does once it has taken `_PATIENCE` seconds, so that an error in it comes alone."""
    timer = threading.Timer(_PATIENCE, announce, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
