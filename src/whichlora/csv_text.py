"""Writes tables as CSV that is safe to open: one line per row, and no cell that a spreadsheet runs as a formula."""

from __future__ import annotations

from typing import Any

import pandas as pd

from whichlora.errors import one_line

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def to_csv(table: pd.DataFrame, *, header: bool = True) -> str:
    """Return a table as CSV, with or without the names of its columns; numbers keep every digit.

    A text that a spreadsheet would take for a formula gets an apostrophe in front (CWE-1236), unless it is a number.
    """
    safe = table.rename(columns=_cell)
    for name in safe.select_dtypes(exclude="number"):
        cells = [_cell(value) for value in safe[name]]
        safe[name] = pd.Series(cells, safe.index, dtype=object)  # whole numbers beside nothing stay whole
    return str(safe.to_csv(index=False, header=header, lineterminator="\n"))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
