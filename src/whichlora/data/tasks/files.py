"""Reads the rows of a task's split in one language, from a folder of files or from the Hugging Face hub."""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from whichlora.caller import given_path
from whichlora.data.hub_datasets import read_split
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.delimited import Dialect, lines_of, records, shows_quoting
from whichlora.data.tasks.folder_contents import contents, nearest
from whichlora.errors import OptionError, is_file, is_folder

FORMATS = ("tsv", "jsonl", "json", "parquet")
_FILE_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "validation"),
    "test": ("test",),
}


@dataclass(frozen=True, slots=True)
class Row:
    """The values of an item by name, and their origin for error messages.

    Attributes:
        source: the value of `data_dir`, or the dataset's name on the hub.
        location: file and line, or row number or item id in formats without lines.
    """

    source: str
    location: str
    values: Mapping[str, Any]

    def fail(self, problem: str) -> NoReturn:
        """Raise an `OptionError` for a problem with this row, with its location and, if it has one, its id."""
        item_id = self.values.get("id")
        suffix = f" (item {item_id})" if item_id and str(item_id) not in self.location else ""
        raise OptionError("data_dir", self.source, f"{self.location}: {problem}{suffix}")

    def text(self, name: str) -> str:
        """Return a value that must be a string.

        Raises:
            OptionError: it is missing or not a string.
        """
        value = self.values.get(name)
        if not isinstance(value, str):
            self.fail(f"{name!r} is missing or not a string")
        return value


def find(data_dir: str | None, language: str, split: Split) -> Path | None:
    """Return the file of a split in one language; None if it does not exist.

    Its name is `SPLIT-LANGUAGE.FORMAT` or `LANGUAGE.SPLIT.FORMAT`, where SPLIT may be `dev` for validation.

    Raises:
        OptionError: `data_dir` is None or not a folder, or several files match.
    """
    if data_dir is None:
        raise OptionError("data_dir", "auto", "this task is not packaged; set data_dir to the folder with its data")
    folder = given_path(data_dir)
    if not is_folder(folder):
        raise OptionError("data_dir", data_dir, "is not a folder")
    matches = [folder / name for name in _names(language, split) if is_file(folder / name)]
    if len(matches) > 1:
        raise OptionError("data_dir", data_dir, f"has both {matches[0].name} and {matches[1].name}; keep one")
    return matches[0] if matches else None


def has_any(data_dir: str, *languages: str) -> bool:
    """Return whether a folder has a file of any split in one of these languages, see `find`.

    Raises:
        OptionError: it is not a folder, or several files match.
    """
    return any(find(data_dir, language, split) for language in languages for split in _FILE_SPLITS)


def read(data_dir: str | None, language: str, split: Split, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a split in one language.

    Args:
        columns: names of the columns of a TSV file, which has no header. The last one collects the remaining cells of
            a line in a list, which may be empty.

    Raises:
        OptionError: the file is missing, empty or cannot be read; the message names the file and, if known, the line.
    """
    path = find(data_dir, language, split)
    assert data_dir is not None
    if path is None:
        names = _names(language, split)
        first, last = names[0], names[-1]
        listed = contents(given_path(data_dir))
        raise OptionError(
            "data_dir",
            data_dir,
            f"has no {split} file in {language}; expected a name such as {first} or {last}; "
            f"{listed}{nearest(names, listed.names)}",
        )
    try:
        rows = [Row(data_dir, f"{path.name} {location}", values) for location, values in _rows(path, columns)]
    except Exception as error:  # the readers raise many types, all of which mean a malformed file
        raise OptionError("data_dir", data_dir, f"{path.name} cannot be read ({error})") from error
    if not rows:
        raise OptionError("data_dir", data_dir, f"{path.name} has no items")
    return rows


def read_hub(name: str, config: str, split: Split, *, id_prefix: str = "") -> list[Row]:
    """Return the rows of a split of a dataset on the hub (or in the local cache) whose ids begin with `id_prefix`.

    Raises:
        OptionError: the dataset cannot be read; the message suggests a local folder.
    """
    table = read_split(name, split, name=config)
    if id_prefix:
        table = table.select([i for i, row_id in enumerate(table["id"]) if row_id.startswith(id_prefix)])
    return [Row(name, f"{config} {split} row {n}", values) for n, values in enumerate(table.to_list())]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, read again only after it has changed."""
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def origin(data_dir: str | None, language: str, split: Split, hub: str) -> dict[str, str]:
    """Return the file of a split with its SHA-256, or without `data_dir` the split of the dataset on the hub."""
    if data_dir is None:
        return {f"hub:{hub} {language} {split}": ""}
    path = find(data_dir, language, split)
    return {} if path is None else {str(path.absolute()): digest(path)}


def _names(language: str, split: Split) -> list[str]:
    stems = [stem for name in _FILE_SPLITS[split] for stem in (f"{name}-{language}", f"{language}.{name}")]
    return [f"{stem}.{ending}" for stem in stems for ending in FORMATS]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for n, values in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1):
            yield f"row {n}", values
    elif path.suffix == ".json":
        yield from _squad(json.loads(path.read_text(encoding="utf-8-sig")))
    elif path.suffix == ".tsv" and (quoted := _quoted_lines(path)):
        for record in records(quoted, Dialect("\t", quoted=True)):
            if record.problem:
                raise ValueError(f"line {record.line}: {record.problem}")
            yield f"line {record.line}", _by_column(record.cells, columns)
    else:
        # Not `splitlines`: it also splits at other characters, such as U+2028, which texts may contain.
        for n, raw in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
            try:
                line = raw.decode("utf-8").removesuffix("\r")
                if line:
                    yield f"line {n}", _object(line) if path.suffix == ".jsonl" else _cells(line, columns)
            except ValueError as error:
                raise ValueError(f"line {n}: {error}") from error


def _object(line: str) -> Mapping[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def _quoted_lines(path: Path) -> list[str]:
    """Return the lines of a TSV file whose cells are in quotation marks, as those of XTREME; none for other files."""
    content = path.read_bytes()
    if b'""' not in content:
        return []
    lines = lines_of(content.decode("utf-8-sig"))
    return lines if shows_quoting(lines) else []


def _cells(line: str, columns: Sequence[str]) -> Mapping[str, Any]:
    """Return the cells of a TSV line by column; quotation marks are part of the text."""
    return _by_column(line.split("\t"), columns)


def _by_column(cells: Sequence[str], columns: Sequence[str]) -> Mapping[str, Any]:
    return {**dict(zip(columns[:-1], cells, strict=False)), columns[-1]: cells[len(columns) - 1 :]}


def _squad(document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the questions of SQuAD 1.1 JSON (Rajpurkar et al. 2016), each with its context."""
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield f"item {question['id']}", {**question, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not SQuAD JSON: {error!r}") from error
