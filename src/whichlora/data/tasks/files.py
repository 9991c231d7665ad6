"""Reads rows of a task's split in one language: from a folder of files, or from the hub."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from whichlora.data.tasks.base import Split
from whichlora.errors import OptionError

FORMATS = ("tsv", "jsonl", "json", "parquet")
_ALSO: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class Row:
    """The values of an item by name, and where they stand.

    Attributes:
        source: the `data_dir` given, or the hub's name; for messages, as `place` is.
        place: file and line, or what tells the row where there are no lines.
    """

    source: str
    place: str
    values: Mapping[str, Any]

    def wrong(self, what: str) -> NoReturn:
        """Raise an `OptionError` that says what is wrong with this row, with its id where it has one."""
        own = self.values.get("id")
        named = f" (item {own})" if own and str(own) not in self.place else ""
        raise OptionError("data_dir", self.source, f"{self.place}: {what}{named}")

    def text(self, name: str) -> str:
        """Return a value that must be a text."""
        value = self.values.get(name)
        if not isinstance(value, str):
            self.wrong(f"has no text for {name!r}")
        return value


def find(data_dir: str | None, language: str, split: Split) -> Path | None:
    """Return the file of a split in one language, None where there is none.

    It is called `SPLIT-LANGUAGE.FORMAT` or `LANGUAGE.SPLIT.FORMAT`, validation also `dev`.

    Raises:
        OptionError: no folder is given, there is no such one, or several files have such a name.
    """
    if data_dir is None:
        raise OptionError("data_dir", "auto", "this task is not packaged: give the folder with its data")
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise OptionError("data_dir", data_dir, "is not a folder")
    found = [folder / name for name in _names(language, split) if (folder / name).is_file()]
    if len(found) > 1:
        raise OptionError("data_dir", data_dir, f"has both {found[0].name} and {found[1].name}; leave one")
    return found[0] if found else None


def read(data_dir: str | None, language: str, split: Split, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a split that must be there.

    Args:
        columns: names of the columns of a TSV, which has no header. The last stands for a list of what is left of a
            line, which may be nothing.

    Raises:
        OptionError: the file is missing or cannot be read; the message says which, and in which line.
    """
    path = find(data_dir, language, split)
    assert data_dir is not None
    if path is None:
        names = _names(language, split)
        first, last = names[0], names[-1]
        raise OptionError(
            "data_dir", data_dir, f"has no file of the split {split} in {language}, such as {first} or {last}"
        )
    try:
        rows = [Row(data_dir, f"{path.name} {place}", values) for place, values in _rows(path, columns)]
    except Exception as error:  # the readers raise many kinds, all of which mean a file that is no such format
        raise OptionError("data_dir", data_dir, f"{path.name} cannot be read ({error})") from error
    if not rows:
        raise OptionError("data_dir", data_dir, f"{path.name} has no items")
    return rows


def read_hub(name: str, config: str, split: Split, *, id_prefix: str = "") -> list[Row]:
    """Return the rows of a split of a data set on the hub, or in its cache, whose ids begin with `id_prefix`.

    Raises:
        OptionError: it cannot be read; the message says that a folder can be given.
    """
    import datasets

    try:
        table = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of many kinds, from no network to a data set that has moved
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        allowed = f"{name} cannot be read from the hub ({reason}); give a folder with the data"
        raise OptionError("data_dir", "auto", allowed) from error
    if id_prefix:
        table = table.select([i for i, own in enumerate(table["id"]) if own.startswith(id_prefix)])
    return [Row(name, f"{config} {split} row {n}", values) for n, values in enumerate(table.to_list())]


def _names(language: str, split: Split) -> list[str]:
    stems = [stem for own in _ALSO[split] for stem in (f"{own}-{language}", f"{language}.{own}")]
    return [f"{stem}.{ending}" for stem in stems for ending in FORMATS]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for n, values in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1):
            yield f"row {n}", values
    elif path.suffix == ".json":
        yield from _squad(json.loads(path.read_text(encoding="utf-8-sig")))
    else:
        # Not `splitlines`: texts may hold the other characters that it takes for ends of lines.
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
        raise ValueError("it is no JSON object")
    return values


def _cells(line: str, columns: Sequence[str]) -> Mapping[str, Any]:
    """Return a line's cells by name. There is no quoting: a quotation mark is part of the text."""
    cells = line.split("\t")
    return {**dict(zip(columns[:-1], cells, strict=False)), columns[-1]: cells[len(columns) - 1 :]}


def _squad(document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the questions of SQuAD 1.1 JSON (Rajpurkar et al. 2016), each with its context."""
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield f"item {question['id']}", {**question, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no SQuAD JSON, {error!r}") from error
