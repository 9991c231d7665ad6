"""Values of records by column: names, numbers and paths into nested values, and labels and ids as text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
"""What editors leave around a label or an id: byte order marks, zero-width spaces, marks of direction."""


class Missing(LookupError):
    """A record has no such column."""


def lookup(values: Mapping[str, Any], column: str | int) -> Any:
    """Return the value of a column, or of several joined by ` + ` as one text.

    A dot leads into nested values, to an entry of a list, counted from 0, and to one of the translations that
    `datasets` stores as two lists.

    Raises:
        Missing: there is none.
    """
    name = unicodedata.normalize("NFC", str(column))
    if name in values:
        return values[name]
    if " + " in name:
        return " ".join(as_text(lookup(values, part.strip())) or "" for part in name.split(" + "))
    value: Any = values
    for key in name.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, Mapping) and (same := [k for k in value if unicodedata.normalize("NFC", str(k)) == key]):
            value = value[same[0]]
        elif isinstance(value, Mapping) and key in (value.get("language") or ()):
            value = value["translation"][list(value["language"]).index(key)]
        elif isinstance(value, Sequence) and not isinstance(value, str) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise Missing(name)
    return value


def as_text(value: Any) -> str | None:
    """Return a number, a boolean or a text as text without blanks around it, NFC-normalised; None for other values.

    Whole numbers are written without a decimal point, and booleans in lower case.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return None if value != value else str(int(value)) if value.is_integer() else str(value)
    if not isinstance(value, str | int):
        return None
    return unicodedata.normalize("NFC", str(value)).strip().strip(_INVISIBLE).strip()


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character: it is empty, or has only blanks and marks of direction."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def defect_of(text: str) -> str:
    """Return why a text cannot be used in a prompt; empty if it can."""
    if "\0" in text:
        return "has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raw = 0xDC80 <= ord(text[error.start]) <= 0xDCFF
        return "is not UTF-8; save the file as UTF-8" if raw else "has half of a surrogate pair"
    return ""


def decoded(value: Any) -> Any:
    """Return a list or object that a cell has as JSON; other values unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
