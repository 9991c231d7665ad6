"""Finds the answers of extractive QA in the context, whatever unit their offsets are counted in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from whichlora.data.tasks.declared.columns import defect_of
from whichlora.data.tasks.spans import accepted_answers, answer_offset

UNITS = {"characters": "", "bytes": "utf-8", "UTF-16 units": "utf-16-le"}
"""Units in which offsets are counted, with the encoding that has them."""


def located_answers(context: str, answers: Any, unit: str) -> dict[str, int]:
    """Return the accepted answers, without blanks around them, with their character offsets in the context.

    An answer that is not where the data says is looked for nearby, and in the context's Unicode normalisation.

    Raises:
        ValueError: `answers` has another form, or an answer is not in the context.
    """
    found: dict[str, int] = {}
    for answer, start in accepted_answers(answers):
        if defect := defect_of(answer):
            raise ValueError(f"answer {defect}")
        at = start if isinstance(start, int) and not isinstance(start, bool) else None
        if at is not None:
            at = _in_characters(context, at, unit) + len(answer) - len(answer.lstrip())
        text = _as_in(context, answer.strip())
        found.setdefault(text, answer_offset(context, text, at))
    return found


def unit_of_offsets(items: Iterable[tuple[Any, Any]]) -> str:
    """Return the unit in which most answers are where the data says; characters if others fit no better.

    Args:
        items: contexts and their answers. In contexts of ASCII characters alone all units are the same.
    """
    hits = dict.fromkeys(UNITS, 0)
    for context, answers in items:
        if not isinstance(context, str) or context.isascii():
            continue
        try:
            pairs = list(accepted_answers(answers))
        except ValueError:
            continue
        for answer, start in pairs:
            if isinstance(start, int) and start > 0:
                for unit in UNITS:
                    hits[unit] += context.startswith(answer, _in_characters(context, start, unit))
    return max(UNITS, key=lambda unit: hits[unit])


def _in_characters(context: str, start: int, unit: str) -> int:
    """Return an offset in characters."""
    encoding = UNITS[unit]
    if not encoding or start < 0 or context.isascii():
        return start
    encoded = context.encode(encoding, "surrogatepass")
    size = 2 if unit == "UTF-16 units" else 1
    return len(encoded[: start * size].decode(encoding, "ignore"))


def _as_in(context: str, answer: str) -> str:
    """Return an answer in the Unicode normalisation in which the context has it, if it has it in another."""
    if answer in context:
        return answer
    forms = (unicodedata.normalize(form, answer) for form in ("NFC", "NFD"))
    return next((form for form in forms if form in context), answer)
