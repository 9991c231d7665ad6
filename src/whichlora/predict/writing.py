"""Writes a table in parts: to standard output, or to a file that gets its name when it is complete."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from whichlora.csv_text import to_csv
from whichlora.errors import OptionError

Write = Callable[[pd.DataFrame], None]


@contextmanager
def writer(path: Path | None, form: str, whole: pd.DataFrame) -> Iterator[Write]:
    """Yield a function that writes the next part of a table.

    Args:
        path: the file, whose suffix is its format; None for standard output, which is not masked: the texts are data.
        form: format of the input, which decides that of standard output.
        whole: the input, whose columns are among those of every part.

    Raises:
        OptionError: the file cannot be written.
    """
    if path is None:
        sys.stdout.flush()
        yield _text_writer(lambda text: sys.stdout.buffer.write(text.encode()), csv=form == "csv")
        sys.stdout.flush()
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".parquet":
            with _parquet_writer(part, whole) as write:
                yield write
        else:
            with part.open("w", encoding="utf-8", newline="") as stream:
                yield _text_writer(stream.write, csv=path.suffix.lower() == ".csv")
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise OptionError("output", path, f"cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _text_writer(write: Callable[[str], object], *, csv: bool) -> Write:
    header = True

    def write_csv(frame: pd.DataFrame) -> None:
        nonlocal header
        write(to_csv(frame, header=header))
        header = False

    def write_json(frame: pd.DataFrame) -> None:
        names = [str(name) for name in frame.columns]
        for row in zip(*(frame[name].tolist() for name in frame.columns), strict=True):
            values = dict(zip(names, map(_plain, row), strict=True))
            write(f"{json.dumps(values, ensure_ascii=False, default=_text)}\n")

    return write_csv if csv else write_json


@contextmanager
def _parquet_writer(path: Path, whole: pd.DataFrame) -> Iterator[Write]:
    """Yield a function that adds a group of rows."""
    types = {str(name): _array(whole[name]).type for name in whole.columns}
    types = {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in types.items()}
    opened: pq.ParquetWriter | None = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal opened
        arrays = {str(name): _array(frame[name], types.get(str(name), pa.string())) for name in frame.columns}
        table = pa.table(arrays)
        if opened is None:
            opened = pq.ParquetWriter(path, table.schema)
        opened.write_table(table)

    try:
        yield write
    finally:
        if opened is not None:
            opened.close()


def _array(values: pd.Series[Any], wanted: pa.DataType | None = None) -> pa.Array:
    """Return a column; one of different types, as JSON may have, becomes one of texts.

    Args:
        wanted: type of a column of objects; None for that of its values.
    """
    if values.dtype != object:
        return pa.Array.from_pandas(values)
    given = values.tolist()
    try:
        return pa.array(given, wanted)
    except (pa.ArrowException, OverflowError):
        return pa.array([_as_text(value) for value in given], pa.string())


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, with null for what is missing."""
    missing = value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


def _text(value: Any) -> Any:
    """Return a value that JSON lacks: a list for an array, an ISO date, or its text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
