"""From an experiment's runs to a report: `python -m analysis.analyze --experiment pocket`.

Writes the page, the statistics, tables and figures into a folder, and logs them to MLflow as a run of kind `report`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from whichlora.command_line import FILE, FOLDER, Command
from whichlora.config.cli import refuse
from whichlora.errors import OptionError, check_folder

OPTIONS = {
    "experiment": (None, "MLflow experiment, or several separated by commas."),
    "output": (
        "report",
        "Folder for the report, relative to the current one (under mlflow run, to that of a SQLite tracking database).",
    ),
    "margin": ("1", "Difference in F1 points within which methods count as equivalent."),
    "scope": (
        "these",
        "What the first answer is about: these languages and ratios (error: seeds), or others like-these (error: how "
        "differences vary between them). The report gives both.",
    ),
    "claims": (
        "none",
        "YAML file with claims of your own, judged after the paper's; its form is that of analysis/claims/claims.yaml.",
    ),
}
_SCOPES = ("these", "like-these")
COMMAND = Command(
    "analyze",
    "Write a report with statistics and figures about experiments.\n\nThe page, tables and figures go into a folder "
    "and into MLflow, as a run of kind report.",
    OPTIONS,
    choices={"output": FOLDER, "claims": FILE, "scope": _SCOPES},
    examples=(
        "whichlora analyze --experiment pocket",
        "whichlora analyze --experiment pocket --margin 2 --claims claims.yaml --output docs/pocket",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, analyse, and print the report's first sentences. Returns the exit status: 2 for bad options."""
    given = COMMAND.read(arguments)
    try:
        margin, output, claims = _margin(given["margin"]), _folder(given["output"]), _file(given["claims"])
        scope = _scope(given["scope"])

        # pandas, SciPy and MLflow take seconds to import, so bad options are refused first.
        from analysis.pipeline import analyze

        report = analyze(given["experiment"], output=output, margin=margin, scope=scope, claims=claims)
    except OptionError as error:
        return refuse(error)
    print("\n".join(report.summary))
    print(f"The report is {output / 'report.html'}, its numbers are in {output / 'statistics.json'}.")
    return 0


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise OptionError("margin", text, "must be a number of F1 points above 0 and at most 100")
    return value


def _scope(text: str) -> str:
    if text not in _SCOPES:
        raise OptionError("scope", text, f"allowed are {', '.join(_SCOPES)}")
    return text


def _folder(text: str) -> Path:
    base = Path.cwd()
    if os.environ.get("MLFLOW_RUN_ID"):
        # `mlflow run` works in the project's folder, so the report goes beside the database, where it was called. Its
        # address is known to MLflow alone, which takes a second to import.
        from whichlora.tracking.client import sqlite_file

        database = sqlite_file()
        base = database.parent if database else base
    path = base / text
    check_folder("output", text, path)
    return path


def _file(text: str) -> Path | None:
    if text == "none":
        return None
    if not Path(text).is_file():
        raise OptionError("claims", text, "must be a YAML file in the form of analysis/claims/claims.yaml, or none")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
