"""Command lines: parsing options, reporting a bad one, showing durations."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from whichlora.config.options import MAIN
from whichlora.errors import OptionError, parse_whole


def refuse(error: OptionError) -> int:
    """Say what is wrong with an option, mark the launch that `mlflow run` may have made, and return exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # MLflow takes more than a second to import, which only a launch by `mlflow run` need wait for.
        from whichlora.tracking.client import connect, mark_launch

        mark_launch(connect())
    return 2


PACK = ("1", "runs that each process trains in one pass over a base model that they share")
"""The option of a grid and of tuning."""
MAX_PACK = 64
Options = Mapping[str, tuple[str | None, str]]
"""Default and help by name; an option without a default must be given."""


def parse_arguments(arguments: Sequence[str] | None, description: str, options: Options = MAIN) -> dict[str, str]:
    """Read options from a command line, as text; a bad option name exits with status 2."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", default=default, required=default is None, help=text, metavar="VALUE")
    return vars(parser.parse_args(arguments))


def check_pack(text: str) -> None:
    """Check all of the option `pack` that can be checked without the runs.

    Raises:
        OptionError: it is no number of runs.
    """
    parse_whole("pack", text, 1, MAX_PACK)


def duration(seconds: float) -> str:
    """Return a time that a person reads at once: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
