"""Provides what commands share: options of workers, reports of bad options, and formatted durations."""

from __future__ import annotations

import contextlib
import os
import sys

from whichlora.errors import OptionError, parse_integer
from whichlora.scheduling.engines import ENGINES


def report_option_error(error: OptionError) -> int:
    """Print an option error, mark the run that `mlflow run` may have created, and return the exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # MLflow takes more than a second to import and is needed only under `mlflow run`.
        from mlflow.exceptions import MlflowException

        from whichlora.tracking.client import connect, database_exists, mark_launch

        with contextlib.suppress(OptionError, MlflowException):  # the error to report is that of the option
            if database_exists():
                mark_launch(connect())
    return 2


WORKERS = {
    "engine": (
        "local",
        f"Where workers run: {' (processes of this machine) or '.join(ENGINES)} (tasks of a cluster).",
    ),
    "workers": ("1", "Number of workers; run the same command on another machine with the same servers to add more."),
    "pack": ("1", "Number of runs that each worker trains together in one pass over a shared base model."),
}
"""Options of `experiment` and `tune` that choose the workers."""
MAX_PACK = 64


def check_pack(text: str) -> None:
    """Check the option `pack` as far as possible without the runs.

    Raises:
        OptionError: the text is not a number from 1 to `MAX_PACK`.
    """
    parse_integer("pack", text, 1, MAX_PACK)


def format_duration(seconds: float) -> str:
    """Format a duration for display: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
