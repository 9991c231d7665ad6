"""Processes that tests start, and their signals."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from typing import Any


def end_all(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Kill those that are still running, each with its process group."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def heed_interrupts() -> None:
    """Let SIGINT end this process; children of a shell's background jobs inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
