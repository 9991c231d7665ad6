"""What commands share: options of workers, reporting a bad option, showing durations."""

from __future__ import annotations

import os
import sys

from whichlora.errors import OptionError, parse_integer
from whichlora.scheduling.engines import ENGINES


def report_option_error(error: OptionError) -> int:
    """Say what is wrong with an option, mark the launch that `mlflow run` may have made, and return exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # MLflow takes more than a second to import, which only a launch by `mlflow run` need wait for.
        from whichlora.tracking.client import connect, mark_launch

        mark_launch(connect())
    return 2


WORKER_OPTIONS = {
    "engine": (
        "local",
        f"Where work is done: {' (processes of this machine) or '.join(ENGINES)} (tasks of a cluster).",
    ),
    "workers": ("1", "Number of workers; the same command on another machine with the same servers adds more."),
    "pack": ("1", "Number of runs that each worker trains together in one pass over a shared base model."),
}
"""The options of a grid and of tuning that say who does the work."""
MAX_PACK = 64


def check_pack(text: str) -> None:
    """Check all of the option `pack` that can be checked without the runs.

    Raises:
        OptionError: it is no number of runs.
    """
    parse_integer("pack", text, 1, MAX_PACK)


def format_duration(seconds: float) -> str:
    """Return a time that a person reads at once: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
