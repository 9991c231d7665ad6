"""Reads results from elsewhere: CSV files with one line per run, whose scores may be those of lm-evaluation-harness.

A line that cannot be used becomes a row with its `defects`, as an MLflow run does, so that it is listed and left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.columns import CONDITIONS, SETTINGS
from analysis.runs.design import Issue
from analysis.runs.harness import Choice, Evaluation, Harness
from analysis.runs.harness_files import HarnessError, few, model_folder
from analysis.runs.predictions import Answers
from analysis.runs.result_tables import CHOICES, OPTION, SAMPLES, SHORT_NAMES, TEXTS, Line, Table, read_table
from analysis.runs.tidy import NUMBERS, REQUIRED, SCORES, trains_pairs
from analysis.runs.validity import defects, is_missing
from whichlora.config.spec import NO_SOURCE
from whichlora.errors import OptionError

_NO_ARM = "unspecified"


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """The content of files of results.

    Attributes:
        rows: a row for each run, as `tidy` takes them.
        digests: SHA-256 of every file that was read, by its path; `names` are the CSV files among them.
        duplicates: lines that repeat another one.
        answers: answers to single items, by run id and outcome.
        notes: sentences on what the files do not say.
    """

    rows: tuple[dict[str, Any], ...] = ()
    names: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    duplicates: tuple[Issue, ...] = ()
    answers: Mapping[tuple[str, str], Answers] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(paths: Sequence[Path]) -> ResultFiles:
    """Read CSV files of results.

    Raises:
        OptionError: a file cannot be read, lacks a needed column, or has no usable line.
    """
    harness = Harness()
    answers: dict[tuple[str, str], Answers] = {}
    digests: dict[str, str] = {}
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        table = read_table(path)
        digests[str(path)] = table.digest
        of_file = [row for line in table.lines for row in _rows(path, line, harness, answers)]
        notes += _notes(path, table, len(of_file))
        rows += of_file
    _check_adapters(rows)
    duplicates = _check_repeated(rows)
    for path in paths:
        _check_usable(path, [row for row in rows if row["experiment"] == str(path)])
    if harness.files.older:
        notes.append(f"Not read, because newer ones are beside them: {few(map(str, harness.files.older))}.")
    repeated = {issue.run_id for issue in duplicates}
    return ResultFiles(
        rows=tuple(row for row in rows if row["run_id"] not in repeated),
        names=tuple(map(str, paths)),
        digests={**digests, **{path: harness.files.digests[path] for path in sorted(harness.files.digests)}},
        duplicates=duplicates,
        answers=answers,
        notes=tuple(notes),
    )


def _notes(path: Path, table: Table, results: int) -> list[str]:
    count = "1 result" if results == 1 else f"{results} results"
    notes = [
        f"{path} (SHA-256 {table.digest[:16]}) has {count} from elsewhere. Their spec version, the fingerprints of "
        "their data and prompts, and how they were trained and tuned are not known, so the checks of a fair comparison "
        "are not available for them."
    ]
    if table.unknown:
        notes.append(f"Columns of {path} that are not read: {few(table.unknown, 12)}.")
    return notes


def _check_usable(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if all(row["defects"] for row in rows):
        problems = "; ".join(f"line {row['line']}: {row['defects']}" for row in rows[:2])
        more = f"; and {len(rows) - 2} more" if len(rows) > 2 else ""
        raise OptionError(OPTION, path, f"no line can be used ({problems}{more})")


def _check_adapters(rows: Sequence[dict[str, Any]]) -> None:
    """Mark rows as defective that disagree on how an adapter was trained."""
    trained: dict[str, dict[tuple[Any, ...], str]] = {}
    columns = ("variant", "arm", "model", "tl_ratio", "seed")
    usable = [row for row in rows if not row["defects"] and row["training_fingerprint"]]
    for row in usable:
        how = tuple(row[name] for name in columns)
        trained.setdefault(row["training_fingerprint"], {}).setdefault(how, row["run_id"])
    for row in usable:
        if len(lines := trained[row["training_fingerprint"]]) > 1:
            row["defects"] = (
                f"has the adapter {row['training_fingerprint']}, which {' and '.join(lines.values())} say was trained "
                f"in different ways ({', '.join(columns)})"
            )


def _check_repeated(rows: Sequence[dict[str, Any]]) -> tuple[Issue, ...]:
    """Return the rows that repeat another one, and mark those as defective that contradict each other."""
    same: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if not row["defects"]:
            key = tuple(str(row.get(name, "")) for name in (*REQUIRED, "model_digest", *SETTINGS, *CONDITIONS))
            same.setdefault(key, []).append(row)
    issues = []
    for group in same.values():
        first, *others = group
        if len({tuple(row.get(score) for score in SCORES.values()) for row in group}) == 1:
            issues += [Issue(row["run_id"], row["name"], f"repeats {first['run_id']}") for row in others]
            continue
        for row in group:
            others_text = few(other["run_id"] for other in group if other is not row)
            row["defects"] = f"has other scores than {others_text}, which has the same values otherwise"
    return tuple(issues)


def _rows(
    path: Path, line: Line, harness: Harness, answers: dict[tuple[str, str], Answers]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a line: one, or with samples one for each language; keep the answers to single items."""
    run_id = f"{path}:{line.number}"
    if line.problem or SAMPLES not in line.values:
        yield _row(run_id, path, line, {}, [line.problem] if line.problem else [])
        return
    try:
        evaluations = _evaluations(path, line.values, harness)
    except (HarnessError, OSError) as error:
        yield _row(run_id, path, line, {}, [f"{SAMPLES}={line.values[SAMPLES]}: {error}"])
        return
    for evaluation in evaluations:
        name = f"{run_id}:{evaluation.task}_{evaluation.language}"
        row = _row(name, path, line, _derived(path, line, evaluation), [])
        answers.update({(row["run_id"], outcome): found for outcome, found in evaluation.answers.items()})
        yield row


def _evaluations(path: Path, values: Mapping[str, str], harness: Harness) -> list[Evaluation]:
    if given := [name for name in values if SHORT_NAMES.get(name, name) in SCORES.values()]:
        raise HarnessError(f"is given together with {given[0]}, which must be empty then")
    choice = Choice(**{CHOICES[name]: values[name] for name in CHOICES if name in values})
    return harness.evaluations(path.parent / values[SAMPLES], choice)


def _derived(path: Path, line: Line, evaluation: Evaluation) -> dict[str, Any]:
    """Return the values that a folder of samples gives; values in the line take precedence."""
    found = {
        **{"task": evaluation.task, "language": evaluation.language, "scoring": evaluation.scoring},
        **{"model": evaluation.model, "adapter": str(model_folder(path.parent / line.values[SAMPLES]))},
        "test_en_digest": evaluation.english_digest,
        **{SCORES[outcome]: score for outcome, score in evaluation.scores.items()},
    }
    return {name: value for name, value in found.items() if name not in line.values}


def _row(run_id: str, path: Path, line: Line, derived: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the row of a run; its `defects` say why it cannot be used."""
    row: dict[str, Any] = {
        **{"arm": _NO_ARM, "fingerprint": None, "adapter": None, "adapter_of": None, "error": None, "synthetic": None},
        **{"run_id": run_id, "name": f"{path.name} line {line.number}", "status": "FINISHED", "experiment": str(path)},
        **{"ended": 0, "artifact_uri": "", "retained": "", "line": line.number, **dict.fromkeys(NUMBERS, math.nan)},
    }
    metrics: dict[str, float] = {name: value for name, value in derived.items() if "/" in name}
    row |= derived
    for column, text in line.values.items():
        name = SHORT_NAMES.get(column, column)
        if name in NUMBERS or ("/" in name and not name.startswith("version/")):
            value, problem = _number(column, name, text)
            problems += [problem] if problem else []
            metrics |= {name: value} if "/" in name else {}
            row[name] = value if math.isfinite(value) else math.nan
        elif name in TEXTS or "/" in name:
            row[name] = text
    row["training_fingerprint"] = row.pop("adapter")
    row.setdefault("test_en_digest", f"{row.get(SCORES['en'])}")  # without one, an equal score stands for equal items
    alone = row.get("source_language") == NO_SOURCE
    short = {metric: f"{o} ({metric})" for o, metric in SCORES.items() if not (alone and o == "en")}
    missing = [short.get(name, name) for name in (*REQUIRED, *short) if is_missing(row.get(name))]
    if trains_pairs(str(row.get("task"))):
        problems = [f"task={row['task']}: results on word pairs are read from MLflow only"]
    elif not problems:
        problems = [f"lacks {', '.join(missing)}"] if missing else defects(row, (), metrics)
    return {**row, "defects": "; ".join(problems)}


def _number(column: str, name: str, text: str) -> tuple[float, str]:
    """Return the number in a column, NaN if it is missing, and what is wrong with it."""
    try:
        value = float(text)
    except ValueError:
        return math.nan, f"{column}={text}: must be a number"
    share = name == "tl_ratio" or name in SCORES.values()
    if share and not 0 <= value <= 1:
        hint = "; divide percents by 100" if 2 < value <= 100 else ""
        return math.nan, f"{column}={text}: must be a number from 0 to 1{hint}"
    if name == "seed" and (not math.isfinite(value) or value % 1):
        return math.nan, f"{column}={text}: must be a whole number"
    return value, "" if math.isfinite(value) or "/" in name else f"{column}={text}: must be a finite number"
