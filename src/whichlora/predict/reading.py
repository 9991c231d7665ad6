"""Reads a table of texts, and names its rows by their lines."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from whichlora.data.tasks.declared.tables import Record, UnreadableError, read_table
from whichlora.errors import OptionError, first_line
from whichlora.predict.options import STREAM

_JSON = (b"{", b"[")


def read_input(path: Path | None, wanted: Sequence[str], *, shown: str) -> tuple[pd.DataFrame, str]:
    """Return a table and its format (`csv`, `json` or `parquet`).

    The index names the rows, as in "line 3". Cells of CSV are texts; those of other formats keep their types.

    Args:
        path: the file; None for standard input.
        wanted: names of columns that are needed; the delimiter is the one that separates them.
        shown: the input as it was given, for messages.

    Raises:
        OptionError: the table cannot be read, is empty, or has a column twice or a row that is malformed.
    """
    if path is None:
        with tempfile.TemporaryDirectory() as scratch:
            return _read_stream(Path(scratch), wanted)
    return _read(path, wanted, shown=shown, name=path.name)


def _read_stream(scratch: Path, wanted: Sequence[str]) -> tuple[pd.DataFrame, str]:
    content = sys.stdin.buffer.read()
    if content.startswith(b"PAR1"):
        raise OptionError("input", STREAM, "must be CSV or JSONL, but is Parquet; give the file")
    form = ".jsonl" if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_JSON) else ".csv"
    path = scratch / f"stdin{form}"
    path.write_bytes(content)
    return _read(path, wanted, shown=STREAM, name="")


def _read(path: Path, wanted: Sequence[str], *, shown: str, name: str) -> tuple[pd.DataFrame, str]:
    try:
        if path.suffix.lower() == ".parquet":
            frame, form = _parquet(path), "parquet"
        else:
            table = read_table(path, name, tuple(wanted), header=True, form=None, quoted=None)
            form = "csv" if table.columns is not None else "json"
            frame = _frame(table.records, table.columns, f"{name} ")
    except UnreadableError as error:
        raise OptionError("input", shown, str(error).strip().removeprefix(f"{name} ")) from error
    except OSError as error:
        raise OptionError("input", shown, f"cannot be read ({error.strerror or first_line(error)})") from error
    if frame.empty:
        raise OptionError("input", shown, "has no rows")
    return frame, form


def _frame(records: Sequence[Record], columns: Sequence[str] | None, prefix: str) -> pd.DataFrame:
    """Return records as a table of objects."""
    if columns is None:
        columns = list(dict.fromkeys(name for record in records for name in record.values))
    elif twice := next((name for name in columns if list(columns).count(name) > 1), None):
        raise UnreadableError(f"line 1: has the column {twice} twice")
    places = [record.location.removeprefix(prefix).strip() for record in records]
    for place, record in zip(places, records, strict=True):
        problem = record.problem or ("" if _is_utf8(record.values) else "is not UTF-8")
        if problem:
            raise UnreadableError(f"{place}: {problem}")
    values = {name: pd.Series([record.values.get(name) for record in records], dtype=object) for name in columns}
    return pd.DataFrame(values).set_axis(places, axis=0)


def _is_utf8(values: Any) -> bool:
    """Return whether no text in a row has a byte that is not UTF-8, or half a character, which no file can hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # which one depends on the damaged byte
        raise UnreadableError(f"cannot be read ({first_line(error)})") from error
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UnreadableError(f"has the column {twice} twice")
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame.set_axis([f"row {number}" for number in range(1, len(frame) + 1)], axis=0)
