"""Reads CSV files of results line by line, and checks their columns."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.columns import CONDITIONS, SETTINGS
from analysis.runs.harness_files import few, model_folders
from analysis.runs.tidy import NUMBERS, REQUIRED, SCORES
from whichlora.errors import OptionError, did_you_mean

OPTION = "results"
SHORT_NAMES = {
    **{"en": SCORES["en"], "tl": SCORES["tl"], "parameters": "adapter/trainable_parameters"},
    **{"seconds": "train/seconds", "gpu_memory_mb": "gpu/memory_max_mb"},
}
"""Metrics by the names that a column may have in their place."""
NEEDED = (*(key for key in REQUIRED if key != "arm"), "en", "tl")
SAMPLES = "samples"
"""The column with the folder of lm-evaluation-harness that a line takes its scores from."""
NEEDED_WITH_SAMPLES = ("variant", "tl_ratio", "seed", SAMPLES)
CHOICES = {"samples_en": "english", "samples_tl": "target", "metric": "metric", "task": "task", "language": "language"}
"""Columns that choose from the results of lm-evaluation-harness, and the fields of `Choice`."""
TEXTS = (
    *REQUIRED,
    *SETTINGS,
    *CONDITIONS,
    *("adapter", "fingerprint", "model_digest", "spec_version", "test_en_digest"),
)
"""Columns that are read as they are written, unless they are among NUMBERS."""


class Line(NamedTuple):
    """A line of a file: its values by column as they are written, without empty ones, and why it cannot be read."""

    number: int
    values: Mapping[str, str]
    problem: str = ""


class Table(NamedTuple):
    """A file: its lines, its SHA-256, and the columns that are not read."""

    lines: list[Line]
    digest: str
    unknown: list[str]


def read_table(path: Path) -> Table:
    """Read a CSV file of results.

    Raises:
        OptionError: it cannot be read, has no results, or lacks a needed column.
    """
    if path.is_dir():
        raise OptionError(OPTION, path, _advice(path))
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise OptionError(OPTION, path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise OptionError(OPTION, path, "must be a CSV file in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        lines = list(_lines(reader, header))
    except csv.Error as error:
        raise OptionError(OPTION, path, f"line {reader.line_num} is no CSV: {error}") from error
    if not lines:
        raise OptionError(OPTION, path, "has no results below its header")
    known = {*TEXTS, *SHORT_NAMES, *NUMBERS, *CHOICES, SAMPLES, "outcome", ""}
    unknown = [name for name in header if name not in known and "/" not in name]
    return Table(lines, hashlib.sha256(content).hexdigest(), unknown)


def _advice(folder: Path) -> str:
    """Return what to do with a folder: it does not say how its models were trained."""
    columns = ",".join((SAMPLES, *NEEDED_WITH_SAMPLES[:-1]))
    found = [str(path) for path in model_folders(folder)]
    example = f" with lines such as {found[0]},lora,0.5,1" if found else ""
    count = f"a folder of {len(found)} models of lm-evaluation-harness" if found else "a folder"
    return f"is {count}; give a CSV file with the columns {columns}{example}"


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not any(header):
        raise OptionError(OPTION, path, "has no header; its first line must name the columns")
    full = [SHORT_NAMES.get(name, name) for name in header]
    for position, name in enumerate(full):
        if name and name in full[:position]:
            first = header[full.index(name)]
            same = "" if first == header[position] else f", as {first}"
            raise OptionError(OPTION, path, f"has the column {header[position]} twice{same}")
    needed = NEEDED_WITH_SAMPLES if SAMPLES in header else NEEDED
    if "source_language" in header:  # lines may be of studies in one language
        needed = tuple(name for name in needed if name != "en")
    missing = [name for name in needed if SHORT_NAMES.get(name, name) not in full]
    if missing:
        if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
            raise OptionError(OPTION, path, "the columns must be separated by commas")
        near = did_you_mean(missing[0], [name for name in header if name not in needed])
        has = f"it has {few(header, 12)}{near}"
        raise OptionError(OPTION, path, f"lacks the columns {', '.join(missing)} (needed: {', '.join(needed)}; {has})")


def _lines(reader: Any, header: Sequence[str]) -> Iterator[Line]:
    # A line of a report's own results.csv is a run and an outcome; each has both scores.
    both = {SCORES["en"], SCORES["tl"]} <= {SHORT_NAMES.get(name, name) for name in header}
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            problem = f"has {len(cells)} values, but the header has {len(header)}"
            yield Line(reader.line_num, {}, problem)
            continue
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name and cell.strip()}
        if not (both and values.get("outcome") == "en"):
            yield Line(reader.line_num, values)
