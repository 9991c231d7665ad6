"""The command `analyze`, which turns runs into a report: `python -m analysis.analyze --experiment pocket`.

Writes the page, statistics, tables and figures to a folder and logs them to MLflow as a run of kind `report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from whichlora.caller import caller_folder, given_path
from whichlora.command_line import FILE, FOLDER, Command, exit_with
from whichlora.config.cli import report_option_error
from whichlora.errors import OptionError, check_choice, check_folder

OPTIONS = {
    "experiment": (None, "MLflow experiment, or several separated by commas."),
    "output": (
        "report",
        "Folder for the report, relative to the current one, also under mlflow run.",
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
    try:
        margin, scope = _margin(texts["margin"]), check_choice("scope", texts["scope"], SCOPES)
        output, claims = _output_folder(texts["output"]), _claims_file(texts["claims"])

        # pandas, SciPy and MLflow take seconds to import, so options are checked first.
        from analysis.pipeline import analyze

        report = analyze(texts["experiment"], output=output, margin=margin, scope=scope, claims=claims)
    except OptionError as error:
        return report_option_error(error)
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


def _output_folder(text: str) -> Path:
    path = caller_folder() / text
    check_folder("output", text, path)
    return path


def _claims_file(text: str) -> Path | None:
    if text == "none":
        return None
    path = given_path(text)
    if not path.is_file():
        raise OptionError("claims", text, "must be a YAML file in the format of analysis/claims/claims.yaml, or none")
    return path


if __name__ == "__main__":
    exit_with(main)
