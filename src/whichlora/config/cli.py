"""Helpers shared by commands: worker options, reporting an invalid option, formatting durations."""

from __future__ import annotations

import os
import sys

from whichlora.errors import OptionError, parse_integer
from whichlora.scheduling.engines import ENGINES


def report_option_error(error: OptionError) -> int:
    """Print an invalid option to stderr, tag the run created by `mlflow run`, if any, and return exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # Imported only for a launch by `mlflow run`, because MLflow takes more than a second to import.
        from whichlora.tracking.client import connect, mark_launch

        mark_launch(connect())
    return 2


WORKER_OPTIONS = {
    "engine": (
        "local",
        f"Where workers run: {' (processes on this machine) or '.join(ENGINES)} (tasks of a cluster).",
    ),
    "workers": ("1", "Number of workers; the same command on another machine with the same servers adds more."),
    "pack": ("1", "Number of runs that each worker trains together in one pass over a shared base model."),
}
"""The options of `experiment` and `tune` that set up workers: default and help text by name."""
MAX_PACK = 64


def check_pack(text: str) -> None:
    """Check the value of the option `pack` without reading the runs; `parse_pack` checks it against them.

    Raises:
        OptionError: it is not a number from 1 to `MAX_PACK`.
    """
    parse_integer("pack", text, 1, MAX_PACK)


def format_duration(seconds: float) -> str:
    """Return a duration in readable units: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
