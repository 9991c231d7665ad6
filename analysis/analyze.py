"""The command `analyze`, which turns runs into a report: `python -m analysis.analyze --experiment pocket`.

Writes the page, statistics, tables and figures to a folder and logs them to MLflow as a run of kind `report`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from whichlora.command_line import FILE, FOLDER, Command, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, check_choice, check_folder, check_text, is_file, parse_number, printable

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
        "YAML file with further claims to judge after the paper's, in the format of analysis/claims/claims.yaml.",
    ),
}
SCOPES = ("these", "like-these")
COMMAND = Command(
    "analyze",
    "Write a report with statistics and figures about experiments.\n\nThe page, tables and figures are written to a "
    "folder and logged to MLflow as a run of kind report.",
    OPTIONS,
    choices={"output": FOLDER, "claims": FILE, "scope": SCOPES},
    examples=(
        "whichlora analyze --experiment pocket",
        "whichlora analyze --experiment pocket --margin 2 --claims claims.yaml --output docs/pocket",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, analyse, and print the report's summary. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _analyze(texts), texts)


def _analyze(texts: Mapping[str, str]) -> int:
    margin = parse_number("margin", texts["margin"], above=0, high=100, unit=" of F1 points")
    scope = check_choice("scope", texts["scope"], SCOPES)
    output, claims = _output_folder(check_text("output", texts["output"])), _claims_file(texts["claims"])

    # pandas, SciPy and MLflow take seconds to import, so options are checked first.
    from analysis.pipeline import analyze

    experiment = check_text("experiment", texts["experiment"])
    report = analyze(experiment, output=output, margin=margin, scope=scope, claims=claims)
    print("\n".join(map(printable, report.summary)))
    print(f"The report is {output / 'report.html'}, its numbers are in {output / 'statistics.json'}.")
    return 0


def _output_folder(text: str) -> Path:
    base = Path.cwd()
    if os.environ.get("MLFLOW_RUN_ID"):
        # `mlflow run` changes to the project's folder, so the report goes to the folder of the database instead. Only
        # MLflow, which takes a second to import, knows its address.
        from whichlora.tracking.client import connect, database_exists, find_launch, sqlite_file

        database = sqlite_file()
        base = database.parent if database and database_exists() and find_launch(connect()) else base
    path = base / text
    check_folder("output", text, path)
    return path


def _claims_file(text: str) -> Path | None:
    if text == "none":
        return None
    if not is_file(Path(text)):
        raise OptionError("claims", text, "must be a YAML file in the format of analysis/claims/claims.yaml, or none")
    return Path(text)


if __name__ == "__main__":
    exit_with(main)
