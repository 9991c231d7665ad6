"""Reads the records of a file in any format: CSV, TSV, JSON, JSONL or Parquet, also compressed."""

from __future__ import annotations

import codecs
import functools
import gzip
import hashlib
import json
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whichlora.data.tasks.delimited import lines_of, records, tell_dialect
from whichlora.errors import first_line

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
_SUFFIXES = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl", ".txt": "tsv", ".tab": "tsv"}


class UnreadableError(ValueError):
    """A file that cannot be read; the message says where and why."""


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        location: file and line, or the number of a row or the id of an item in formats without lines.
        values: by column; the columns of a file without a header are "1", "2" and so on.
        problem: why the record cannot be used, if it is malformed.
    """

    location: str
    values: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """The records of a file.

    Attributes:
        name: the file's path relative to its folder.
        form: its format, with delimiter and quoting, for users.
        sha256: of the file; empty for a table of the hub, which has no file.
        classes: names that stand for the numbers of a column, which `datasets` calls class labels.
        columns: names of the columns of CSV and TSV in their order, also such that occur twice; None for other formats.
    """

    name: str
    form: str
    sha256: str
    records: Sequence[Record]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None


def read_table(
    path: Path, name: str, columns: tuple[str, ...], *, header: bool, form: str | None, quoted: bool | None
) -> Table:
    """Return the records of a file; of the last files, those that have not changed are not read again.

    Args:
        columns: the columns that are needed; the delimiter is the one that separates them.
        header: whether the first line of a CSV or TSV file has the names of the columns.
        form: the format, if the suffix does not determine it.
        quoted: whether the cells of a CSV or TSV file are quoted, if that cannot be detected.

    Raises:
        UnreadableError: the file cannot be read in its format.
    """
    status = path.stat()
    return _read(path, name, columns, header, form, quoted, (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=4)
def _read(
    path: Path,
    name: str,
    columns: tuple[str, ...],
    header: bool,
    form: str | None,
    quoted: bool | None,
    state: tuple[int, int],
) -> Table:
    packed = path.suffix.lower() == ".gz"
    chosen = form or _SUFFIXES.get((Path(path.stem) if packed else path).suffix.lower())
    if chosen is None:
        raise UnreadableError(f"{name}: its suffix tells no format; set `format` to one of {', '.join(FORMATS)}")
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        raise UnreadableError(f"{name} is a pointer of Git LFS; fetch the file itself with `git lfs pull`")
    digest = hashlib.sha256(content).hexdigest()
    try:
        content = _unpacked(content) if packed else content
        if chosen == "parquet":
            return _parquet(content, name, "Parquet" + ", gzip" * packed, digest)
        text = _text(content)
        names = None
        if chosen in ("csv", "tsv"):
            kind, names, found = _delimited(text, name, columns, header, chosen, quoted)
        else:
            kind, found = _json(text, name, chosen)
    except UnreadableError:
        raise
    except Exception as error:  # the readers raise many types, all of which mean a malformed file
        raise UnreadableError(f"{name} cannot be read ({first_line(error)})") from error
    return Table(name, kind + ", gzip" * packed, digest, found, columns=names)


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except EOFError as error:
        raise ValueError("the compressed file is truncated") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"it is not compressed with gzip, or damaged: {first_line(error)}") from error


def _text(content: bytes) -> str:
    """Return a file's text; bytes that are not UTF-8 become surrogates, for which the item is refused later."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _parquet(content: bytes, name: str, form: str, digest: str) -> Table:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    records = [Record(f"{name} row {n}", values) for n, values in enumerate(table.to_pylist(), 1)]
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    classes = {column: names for column, entry in features.items() if (names := entry.get("names"))}
    return Table(name, form, digest, records, classes)


def _delimited(
    text: str, name: str, columns: Sequence[str], header: bool, chosen: str, quoted: bool | None
) -> tuple[str, tuple[str, ...], list[Record]]:
    lines = lines_of(text)
    dialect = tell_dialect(lines, columns, "," if chosen == "csv" else "\t", quoted, header=header)
    found = list(records(lines, dialect))
    if header and found:
        names = [unicodedata.normalize("NFC", cell.strip()) for cell in found.pop(0).cells]
        twice = next((column for column in names if names.count(column) > 1 and column in columns), None)
        if twice:
            raise UnreadableError(f"{name} line 1: has the column {twice} twice")
    else:
        names = [str(n) for n in range(1, max((len(record.cells) for record in found), default=0) + 1)]
    return (
        f"{chosen.upper()} {'with' if header else 'without'} a header, {dialect}",
        tuple(names),
        [
            Record(f"{name} line {record.line}", dict(zip(names, record.cells, strict=False)), record.problem)
            for record in found
        ],
    )


def _json(text: str, name: str, chosen: str) -> tuple[str, list[Record]]:
    """Return the format and the records of JSON or JSONL; the content counts, not the suffix."""
    try:
        document = _loads(text)
    except json.JSONDecodeError as error:
        stripped = text.lstrip()
        if chosen == "jsonl" or (stripped.startswith("{") and _is_object(stripped.partition("\n")[0])):
            return "JSONL", list(_json_lines(text, name))
        raise UnreadableError(f"{name} line {error.lineno}: cannot be read ({error.msg})") from error
    if isinstance(document, dict) and chosen == "jsonl" and not isinstance(document.get("data"), list):
        return "JSONL", list(_json_lines(text, name))  # of one line
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        found = f"has {', '.join(list(document)[:10])}" if isinstance(document, dict) else f"is {str(document)[:20]!r}"
        raise UnreadableError(f"{name} must be a list of records, or an object with one under data; it {found}")
    if any(isinstance(entry, dict) and isinstance(entry.get("paragraphs"), list) for entry in entries):
        return "SQuAD JSON", list(_squad(entries, name))
    return "JSON", [_record(f"{name} item {n}", entry) for n, entry in enumerate(entries, 1)]


_loads: Callable[[str], Any] = functools.partial(json.loads, parse_constant=lambda _: None)


def _is_object(line: str) -> bool:
    try:
        return isinstance(_loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(text: str, name: str) -> Iterator[Record]:
    # Not `splitlines`: it also splits at other characters, such as U+2028, which texts may contain.
    for n, line in enumerate(text.split("\n" if "\n" in text else "\r"), 1):
        if not line.strip():
            continue
        try:
            yield _record(f"{name} line {n}", _loads(line))
        except (ValueError, RecursionError) as error:
            yield Record(f"{name} line {n}", {}, f"is not JSON ({first_line(error)})")


def _record(location: str, entry: Any) -> Record:
    return Record(location, entry) if isinstance(entry, dict) else Record(location, {}, "is not a JSON object")


def _squad(articles: Sequence[Any], name: str) -> Iterator[Record]:
    """Yield the questions of SQuAD JSON (Rajpurkar et al. 2016, 2018), each with its context and title."""
    for a, article in enumerate(articles, 1):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        for p, paragraph in enumerate(paragraphs if isinstance(paragraphs, list) else [None], 1):
            where = f"{name} article {a} paragraph {p}"
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(questions, list):
                yield Record(where, {}, "has no list of questions, qas")
                continue
            shared = {"title": article.get("title"), "context": paragraph.get("context")}
            for q, question in enumerate(questions, 1):
                if not isinstance(question, dict):
                    yield Record(f"{where} question {q}", {}, "is not a JSON object")
                else:
                    place = f"{name} item {question['id']}" if "id" in question else f"{where} question {q}"
                    yield Record(place, {**shared, **question})
