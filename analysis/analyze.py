"""The command `analyze`, which turns runs into a report: `python -m analysis.analyze --experiment pocket`.

Writes the page, statistics, tables and figures to a folder and logs them to MLflow as a run of kind `report`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from whichlora.announcements import announced
from whichlora.caller import caller_folder, given_path
from whichlora.command_line import FILE, FOLDER, Command, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import (
    OptionError,
    check_choice,
    check_model_name,
    check_output_folder,
    check_text,
    is_file,
    parse_number,
    parse_unless,
    printable,
)
from whichlora.option_lists import parse_list

OPTIONS = {
    "experiment": ("none", "MLflow experiment, or several separated by commas; none if only results are given."),
    "results": (
        "none",
        "CSV file with results from elsewhere, or several separated by commas: a line per run, with its scores or a "
        "folder of lm-evaluation-harness's samples (docs/results-from-elsewhere.md).",
    ),
    "output": (
        "report",
        "Folder for the report, relative to the current one, also under mlflow run.",
    ),
    "margin": (
        "1",
        "Difference in points of F1 or of the task's own metric within which methods are equivalent.",
    ),
    "primary": (
        "tl",
        "Primary outcome, which the advice is about: the target language (tl), the source language, as a rule English "
        "(en), or the mean of both. Fix "
        "it before you look at the results; the others are secondary.",
    ),
    "scope": (
        "these",
        "What the first answer is about: these languages and ratios (error: seeds), or others like-these (error: how "
        "differences vary between them). The report gives both.",
    ),
    "claims": (
        "none",
        "Claims to judge: paper (those of the paper), field (statements of 2025 and 2026), a YAML file of your own in "
        "the format of analysis/claims/paper.yaml, or several separated by commas. Files alone are judged after the "
        "paper's; none is the same as paper.",
    ),
    "server": (
        "relative",
        "Address of the tracking server, such as http://127.0.0.1:5000, in the report's links to the "
        "runs. Relative links "
        "work where the report is opened from the server, as an artifact of its run.",
    ),
    "register": (
        "none",
        "Name in MLflow's Model Registry under which the model of the winning method is registered, with the alias "
        "champion and its evidence as tags.",
    ),
    "register_language": (
        "none",
        "Language of the model to register; none for the first in the alphabet of those with the ratio that suits the "
        "primary outcome (for tl the highest).",
    ),
}
SCOPES, OUTCOMES, CLAIMS = ("these", "like-these"), ("tl", "en", "mean"), ("paper", "field")
COMMAND = Command(
    "analyze",
    "Write a report with statistics and figures about experiments and results from elsewhere.\n\nThe page, tables and "
    "figures are written to a folder and, with an experiment, logged to MLflow as a run of kind report.",
    OPTIONS,
    choices={"results": FILE, "output": FOLDER, "claims": (*CLAIMS, *FILE), "primary": OUTCOMES, "scope": SCOPES},
    examples=(
        "whichlora analyze --experiment pocket",
        "whichlora analyze --experiment pocket --margin 2 --claims paper,field --output docs/pocket",
        "whichlora analyze --results results.csv",
        "whichlora analyze --experiment pocket --register nli-swahili",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, analyse, and print the report's summary. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _analyze(texts), texts)


def _analyze(texts: Mapping[str, str]) -> int:
    margin = parse_number("margin", texts["margin"], above=0, high=100, unit=" of F1 points")
    scope = check_choice("scope", texts["scope"], SCOPES)
    primary = check_choice("primary", texts["primary"], OUTCOMES)
    output, claims = _output_folder(check_text("output", texts["output"])), _claim_files(texts["claims"])
    experiment, results = check_text("experiment", texts["experiment"]), _result_files(texts["results"])
    if experiment == "none" and not results:
        raise OptionError("experiment", "none", "give an experiment, or results, or both")
    server = _server(texts["server"])
    register = _registered_name(texts["register"], experiment)
    language = _registered_language(texts["register_language"], register)

    # pandas, SciPy and MLflow take seconds to import, so options are checked first.
    with announced("Loading packages."):
        from threadpoolctl import threadpool_limits

        from analysis.pipeline import analyze, register_winner

    # The last digits of a matrix product depend on the number of threads, and a report with others is another report.
    with threadpool_limits(limits=1, user_api="blas"):
        analysis = analyze(
            experiment,
            results=results,
            output=output,
            margin=margin,
            primary=primary,
            scope=scope,
            claims=claims,
            server=server,
            register=register,
            register_language=language,
        )
    print("\n".join(map(printable, analysis.report.summary)))
    print(f"The report is {output / 'report.html'}, its numbers are in {output / 'statistics.json'}.", flush=True)
    if register is not None:
        print(printable(register_winner(register, analysis, language)))
    return 0


def _output_folder(text: str) -> Path:
    path = caller_folder() / text
    check_output_folder("output", text, path)
    return path


def _result_files(text: str) -> list[Path]:
    """Return the files that the option names; whether they can be used is checked when they are read."""
    if text == "none":
        return []
    if given_path(text).exists():
        return [given_path(text)]

    def existing(option: str, name: str) -> Path:
        if not name or not given_path(name).exists():
            raise OptionError(option, name, "must be a CSV file, or several separated by commas, or none")
        return given_path(name)

    return list(dict.fromkeys(parse_list("results", text, existing)))


def _claim_files(text: str) -> list[Path]:
    """Return the files of claims that the option names; files alone come after the paper's."""
    packaged = {name: Path(__file__).with_name("claims") / f"{name}.yaml" for name in CLAIMS}
    if text == "none":
        return [packaged["paper"]]
    names = [text] if is_file(given_path(text)) else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in packaged and not (name and is_file(given_path(name))):
            allowed = "must be a YAML file in the format of analysis/claims/paper.yaml, paper, field, several of these "
            allowed += "separated by commas, or none"
            raise OptionError("claims", text, allowed if len(names) == 1 else f"{name or 'an empty part'} {allowed}")
    if not packaged.keys() & set(names):
        names = ["paper", *names]
    return [packaged.get(name) or given_path(name) for name in dict.fromkeys(names)]


def _registered_name(text: str, experiment: str) -> str | None:
    """Return the name of the registered model; None if none is to be registered."""
    name = parse_unless("none", check_model_name, "register", text)
    if name is not None and experiment == "none":
        raise OptionError("register", text, "needs an experiment, whose runs have models")
    return name


def _registered_language(text: str, register: str | None) -> str | None:
    if text == "none":
        return None
    if register is None:
        raise OptionError("register_language", text, "needs register, the name to register a model under")
    return check_text("register_language", text)


def _server(text: str) -> str:
    address = text.partition("#")[0].rstrip("/")
    if text != "relative":
        try:
            parts = urlsplit(address)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
            valid = valid and not parts.query and not re.search(r"[\s<>\"'\\]", address) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise OptionError("server", text, "must be relative, or an http(s) address without user and password")
    return address


if __name__ == "__main__":
    exit_with(main)
