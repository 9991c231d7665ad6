"""Options of the command `predict` with defaults and help texts, and the typed request parsed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whichlora.caller import given_path
from whichlora.config.options import AUTO
from whichlora.errors import (
    OptionError,
    check_output_folder,
    check_text,
    is_file,
    is_folder,
    parse_integer,
    parse_unless,
)

STREAM = "-"
"""Value of `input` and `output` for standard input and output."""
INPUTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
OUTPUTS = (".csv", ".jsonl", ".parquet")
OPTIONS = {
    "run_id": (AUTO, "MLflow id, or its first digits, of a finished run or trial."),
    "model": (
        AUTO,
        "In place of run_id: a registered model NAME (its alias champion, or else its latest version), NAME@ALIAS, a "
        "models:/ URI, or the folder of a logged model or of an exported adapter.",
    ),
    "input": (
        None,
        f"Table with the texts of the task, such as premise and hypothesis: a file ({', '.join(INPUTS)}, also with "
        f".gz), or '{STREAM}' for CSV or JSONL from standard input.",
    ),
    "output": (
        STREAM,
        f"File to write ({', '.join(OUTPUTS)}), or '{STREAM}' for standard output, in CSV for CSV and in JSONL for "
        "other formats.",
    ),
    "batch_size": (AUTO, "Most rows that are read at once; auto is as many as the memory allows."),
    "base": (AUTO, "Folder or hub id of the base model, if it was moved."),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The parsed options; None stands for `auto` and, of input and output, for the standard streams.

    Attributes:
        shown: the input as it was given, for messages.
    """

    run_id: str | None
    model: str | None
    input: Path | None
    shown: str
    output: Path | None
    batch_size: int | None
    base: str | None


def parse(texts: Mapping[str, str]) -> Request:
    """Parse the options, with all checks that need no model.

    Raises:
        OptionError: a value is not allowed.
    """
    for option, text in texts.items():
        check_text(option, text)
    run_id, model = (None if texts[name] == AUTO else texts[name] for name in ("run_id", "model"))
    if (run_id is None) == (model is None):
        problem = "must be given, or model" if run_id is None else "cannot be given together with model"
        raise OptionError("run_id", texts["run_id"], problem)
    given = None if texts["input"] == STREAM else _input(texts["input"])
    output = None if texts["output"] == STREAM else _output(texts["output"])
    if output is not None and output == given:
        raise OptionError("output", texts["output"], "is the input, which would be lost")
    return Request(
        run_id=run_id,
        model=model,
        input=given,
        shown=texts["input"],
        output=output,
        batch_size=parse_unless(AUTO, parse_integer, "batch_size", texts["batch_size"], 1),
        base=None if texts["base"] == AUTO else texts["base"],
    )


def _input(text: str) -> Path:
    path = given_path(text).absolute()
    if not is_file(path):
        raise OptionError(
            "input", text, "is not a file" if is_folder(path) or path.exists() else "there is no such file"
        )
    packed = path.suffix.lower() == ".gz"
    _check_suffix("input", text, Path(path.stem) if packed else path, INPUTS)
    if packed and Path(path.stem).suffix.lower() == ".parquet":
        raise OptionError("input", text, "must not be compressed with gzip: Parquet is compressed already")
    return path


def _output(text: str) -> Path:
    path = given_path(text).absolute()
    _check_suffix("output", text, path, OUTPUTS)
    check_output_folder("output", text, path.parent)
    if is_folder(path):
        raise OptionError("output", text, "is a folder")
    return path


def _check_suffix(option: str, text: str, path: Path, allowed: tuple[str, ...]) -> None:
    suffix = path.suffix.lower()
    if suffix not in allowed:
        advice = "" if option == "output" else ", also with .gz"
        raise OptionError(option, text, f"must end in {', '.join(allowed)}{advice}, or be {STREAM}")
