"""Reads CSV and TSV text: detects delimiter and quoting, and keeps an error within its line."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')
_SAMPLE = 200
"""Number of lines from which the delimiter is detected; the quoting is detected from all."""
_LONGEST = 1000
"""Number of lines of a record, at most."""

csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long document


@dataclass(frozen=True)
class Dialect:
    """How cells are separated, and whether quotation marks around a cell belong to the format or to the text."""

    delimiter: str
    quoted: bool

    def __str__(self) -> str:
        quoting = "quoted cells" if self.quoted else "no quoting: quotation marks are part of the text"
        return f"separated by {DELIMITERS[self.delimiter]}, {quoting}"


@dataclass(frozen=True)
class Cells:
    """The cells of a record that begins in line `line`; `problem` says why they cannot be trusted, if so."""

    line: int
    cells: list[str]
    problem: str = ""


def lines_of(text: str) -> list[str]:
    """Return the lines with their ends; those of old Macintosh files, which have no line feed, end in `\\r`."""
    end = "\n" if "\n" in text else "\r"
    return [line + end for line in text.split(end)]


def tell_dialect(
    lines: Sequence[str], columns: Collection[str], first: str, quoted: bool | None, *, header: bool = True
) -> Dialect:
    """Return the dialect of a file.

    Args:
        columns: names of which the header has most with the right delimiter, or numbers of a file without a header.
        first: the delimiter that the name of the file promises, which wins a tie.
        quoted: whether cells are quoted, if that is known.
    """
    sample = [line for line in lines[:_SAMPLE] if line.strip()]
    names, width = (columns, 2) if header else ((), max((int(column) for column in columns), default=2))
    delimiter = _tell_delimiter(sample, names, width, first)
    return Dialect(delimiter, _tell_quoting(lines, delimiter) if quoted is None else quoted)


def shows_quoting(lines: Sequence[str]) -> bool:
    """Return whether cells separated by tabs are certainly quoted: all with a mark are, and one has a doubled mark."""
    marked = [cell for record in _split(lines, "\t") for cell in record.cells if '"' in cell]
    return all(map(_QUOTED_CELL.fullmatch, marked)) and any('""' in cell[1:-1] for cell in marked)


def records(lines: Sequence[str], dialect: Dialect) -> Iterator[Cells]:
    """Yield the records of a file, without blank lines.

    A record whose quotation marks are not closed, or that has another number of cells than most, has a problem. Where
    it goes on over several lines, only its first line is taken for it: a lone quotation mark would otherwise join the
    rest of the file to one text.
    """
    found = list((_parse if dialect.quoted else _split)(lines, dialect.delimiter))
    width = _width(found)
    for record in found:
        problem = record.problem
        if not problem and len(record.cells) != width:
            problem = f"has {len(record.cells)} cells instead of {width}"
        yield Cells(record.line, record.cells, problem)


def _tell_delimiter(lines: Sequence[str], columns: Collection[str], width: int, first: str) -> str:
    """Return the delimiter that gives most of the columns, at least `width` cells and lines that are most alike."""
    if not lines:
        return first
    order = [first, *(delimiter for delimiter in DELIMITERS if delimiter != first)]

    def fit(delimiter: str) -> tuple[int, bool, int, int]:
        header = {cell.strip().strip('"') for cell in lines[0].split(delimiter)}
        counts = Counter(line.count(delimiter) for line in lines)
        number, alike = counts.most_common(1)[0]
        return len(header.intersection(columns)), number + 1 >= width, alike, -order.index(delimiter)

    return max(order, key=fit)


def _tell_quoting(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether quotation marks belong to the format.

    Where every line has the same number of cells if they do not, the cells decide: with tabs, one that is not quoted
    as a whole shows that none is; with other delimiters, one that is quoted as a whole shows that others may be.
    Otherwise the reading with fewer irregular records is right.
    """
    if not any('"' in line for line in lines):
        return delimiter != "\t"
    plain = list(_split(lines, delimiter))
    width = _width(plain)
    irregular = sum(len(record.cells) != width for record in plain)
    marked = [bool(_QUOTED_CELL.fullmatch(cell)) for record in plain for cell in record.cells if '"' in cell]
    if not irregular and (delimiter == "\t" or any(marked)):
        return all(marked) or delimiter != "\t"
    parsed = list(_parse(lines, delimiter))
    width = _width(parsed)
    wrong = sum(bool(record.problem) or len(record.cells) != width for record in parsed)
    return wrong < irregular or (wrong == irregular and delimiter != "\t")


def _width(found: Sequence[Cells]) -> int:
    """Return the number of cells that most records have; of the most frequent, that of the first."""
    counts = Counter(len(record.cells) for record in found if not record.problem)
    return counts.most_common(1)[0][0] if counts else 0


def _split(lines: Sequence[str], delimiter: str) -> Iterator[Cells]:
    for number, line in enumerate(lines, 1):
        if text := line.rstrip("\r\n"):
            yield Cells(number, text.split(delimiter))


class _Position:
    """An iterator over lines from the position `at` to `end`, which can be moved."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines, self.at, self.end = lines, 0, len(lines)

    def __iter__(self) -> _Position:
        return self

    def __next__(self) -> str:
        if self.at >= self.end:
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


def _parse(lines: Sequence[str], delimiter: str) -> Iterator[Cells]:
    position, width = _Position(lines), 0
    while position.at < len(lines):
        start = position.at
        if not lines[start].strip("\r\n"):
            position.at += 1
            continue
        problem, cells = "", [""]
        position.end = min(start + _LONGEST, len(lines))
        try:
            cells = next(csv.reader(position, delimiter=delimiter, strict=True))
        except csv.Error as error:
            lone = "new-line" in str(error)
            problem = "has a carriage return in a cell" if lone else "has a quotation mark that does not enclose a cell"
        width = width or len(cells)
        if position.at > start + 1 and not problem and len(cells) != width:
            problem = f"has a quotation mark that is not closed, or {len(cells)} cells instead of {width}"
        if problem:
            position.at = start + 1
        yield Cells(start + 1, cells, problem)
