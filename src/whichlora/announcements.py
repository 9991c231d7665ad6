"""Says what a command is about to do where that takes some seconds, so that nobody waits for a silent terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from whichlora.errors import printable
from whichlora.masking import masked

_PATIENCE = 1.5
"""Seconds of a block of `announced` above which it is announced."""
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

    tqdm.write(printable(masked(text)), file=sys.stderr)
    sys.stderr.flush()


@contextmanager
def announced(text: str, *, logged: bool = False) -> Iterator[None]:
    """Announce what the block does if it takes long, where an error may end the command, which then stands alone.

    In a terminal the line comes after `_PATIENCE` seconds. Elsewhere nobody watches.

    Args:
        logged: whether the line comes without a terminal too: after the block, with its seconds, so that an error there
            is one line.
    """
    start = time.monotonic()
    timer = threading.Timer(_PATIENCE, announce, (text,))
    timer.daemon = True
    terminal = sys.stderr.isatty()
    if terminal:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
    seconds = time.monotonic() - start
    if logged and not terminal and seconds > _PATIENCE:
        announce(f"{text.rstrip('.')}: {seconds:.0f} s.", key=text)
