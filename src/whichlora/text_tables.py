"""Lays out tables for a terminal, with columns that align in every script and fit the width; writes scores, sizes."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import wcwidth

_NUMBER = re.compile(r"<?[+-]?(\d[\d,]*)?(\.\d+)?( %|\+[\d,]*)?|-?")
_KEPT = {"\n", "\u200c", "\u200d"}
"""Characters without a glyph that text needs: line breaks, and the zero-width joiners of Indic and Arabic scripts."""
_LEFT_TO_RIGHT = "\u200e"
"""The mark that ends a right-to-left text, so that a terminal does not draw the next column on its left."""
_SHORTEST = 10
"""Cells to which a column may be shortened."""
_GAP, _INDENT = 2, 2


def terminal_width() -> int | None:
    """Return the number of cells in a line of the terminal; None if the output is no terminal and has no such limit.

    The environment variable `COLUMNS` takes precedence.
    """
    return shutil.get_terminal_size((0, 0)).columns or None


@dataclass(frozen=True)
class Scale:
    """How scores from 0 to 1 are written for readers: times `factor`, with so many decimals."""

    factor: int
    decimals: int

    def text(self, score: float) -> str:
        """Return a score, such as "88.7"."""
        return f"{self.factor * score:.{self.decimals}f}"

    def gain(self, difference: float) -> str:
        """Return a difference of two scores with its sign, such as "+1.4"; one that is rounded to zero has none."""
        text = f"{self.factor * difference:+.{self.decimals}f}"
        return text if float(text) else text[1:]

    def interval(self, low: float, high: float) -> str:
        """Return an interval, such as "41.2-50.8"; a t interval may begin below 0, where a hyphen seems a minus."""
        return f"{self.text(low)}{' to ' if low < 0 else '-'}{self.text(high)}"


POINTS, SHARES = Scale(100, 1), Scale(1, 3)
"""The scales of F1 and the other scores of tasks, and of shares of pairs such as P@1."""


def table(
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    whole: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> str:
    """Return rows as aligned columns: the first row is the head, columns of numbers are flush right.

    Args:
        rows: the head and the rows, all of one length.
        width: cells in a line. Where it does not suffice, columns of texts are shortened and then optional ones left
            out; a line that is still too long is cut.
        whole: heads of columns that are not shortened, such as ids.
        optional: heads of columns that may be left out, the first one first.
    """
    cells = [[_text(value) for value in row] for row in rows]
    columns = [_Column(values, whole=values[0] in whole) for values in map(list, zip(*cells, strict=True))]
    if width is not None:
        for head in (None, *optional):
            columns = [column for column in columns if column.head != head]
            if _shorten(columns, width):
                break
        else:
            for column in columns:
                column.width = column.least
    rows_of_cells = zip(*(column.lines() for column in columns), strict=True)
    lines = ((" " * _INDENT + (" " * _GAP).join(cells_of_row)).rstrip() for cells_of_row in rows_of_cells)
    return "\n".join(line if width is None else _clip(line, width) for line in lines)


class _Column:
    """A column of a table, whose first value is the head."""

    def __init__(self, values: Sequence[str], *, whole: bool) -> None:
        self.head, self.values = values[0], values
        self.numeric = all(map(_NUMBER.fullmatch, values[1:]))
        self.width = max(map(wcwidth.width, values))
        self.least = self.width if whole or self.numeric else min(self.width, max(_SHORTEST, wcwidth.width(self.head)))

    def lines(self) -> list[str]:
        """Return the values, padded or cut to the width."""
        return [self._line(value) for value in self.values]

    def _line(self, value: str) -> str:
        text = _clip(value, self.width)
        blanks = " " * (self.width - wcwidth.width(text))
        if any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
            text += _LEFT_TO_RIGHT
        return blanks + text if self.numeric else text + blanks


def _shorten(columns: Sequence[_Column], width: int) -> bool:
    """Shorten the widest columns, cell by cell, until a line has `width` cells; return whether that suffices."""
    excess = _INDENT + sum(column.width + _GAP for column in columns) - _GAP - width
    if excess > sum(column.width - column.least for column in columns):
        return False
    for _ in range(excess):
        widest = max((c for c in columns if c.width > c.least), key=lambda c: c.width)
        widest.width -= 1
    return True


def _clip(text: str, width: int) -> str:
    """Return the beginning of a text, with an ellipsis if it is cut."""
    if wcwidth.width(text) <= width:
        return text
    return wcwidth.clip(text, 0, width - 1).rstrip() + "…"


def shown(text: str) -> str:
    """Return a text from data with its control characters escaped, also those that change the direction of writing."""
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else shown(str(value)).replace("\n", "\\n")


def format_size(size: int) -> str:
    """Return a number of bytes as "93 MiB"."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size >= 1024**power:
            value = size / 1024**power
            return f"{value:.1f} {unit}" if value < 10 and power > 1 else f"{value:,.0f} {unit}"
    return f"{size} B"
