"""Formats tables and texts for a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NUMBER = re.compile(r"<?[\d,]+( %|\+[\d,]*)?|-?")
_KEPT = {"\n", "\u200c", "\u200d"}
"""Characters without a glyph that text needs: line breaks, and the zero-width joiners of Indic and Arabic scripts."""


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns: the first row is the head, columns of numbers are flush right."""
    cells = [[_text(value) for value in row] for row in rows]
    right = [all(map(_NUMBER.fullmatch, (row[k] for row in cells[1:]))) for k in range(len(rows[0]))]
    widths = [max(_width(row[k]) for row in cells) for k in range(len(rows[0]))]
    lines = []
    for row in cells:
        padded = (_pad(text, widths[k], right=right[k]) for k, text in enumerate(row))
        lines.append(f"  {'  '.join(padded)}".rstrip())
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return a text from data with its control characters escaped, also those that change the direction of writing."""
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else shown(str(value)).replace("\n", "\\n")


def _width(text: str) -> int:
    """Return the number of columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in ("W", "F") for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)


def _pad(text: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
