"""Reads the accepted answers of extractive QA, and finds them in the context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def accepted_answers(answers: Any) -> Iterator[tuple[str, int | None]]:
    """Yield each accepted answer and its start offset; None if the data has no offset. Empty answers are left out.

    SQuAD JSON has a list of objects, the hub an object of two lists, and a TSV line only the texts.

    Raises:
        ValueError: `answers` has another form.
    """
    answers = [] if answers is None else [answers] if isinstance(answers, str) else answers
    try:
        if isinstance(answers, dict):
            pairs = list(
                zip(answers["text"], answers.get("answer_start") or [None] * len(answers["text"]), strict=True)
            )
        else:
            pairs = [(a, None) if isinstance(a, str) else (a["text"], a.get("answer_start")) for a in answers]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("answers must be texts with their start offsets") from error
    for text, start in pairs:
        if isinstance(text, str) and text.strip():
            yield text, start


def answer_offset(context: str, answer: str, start: int | None) -> int:
    """Return the character offset of the answer in the context: `start` if correct, else the nearest occurrence.

    Raises:
        ValueError: the answer is not in the context.
    """
    expected = start if isinstance(start, int) and start >= 0 else 0
    if context.startswith(answer, expected):
        return expected
    before, after = context.rfind(answer, 0, expected + len(answer)), context.find(answer, expected)
    offsets = [offset for offset in (before, after) if offset >= 0]
    if not offsets:
        raise ValueError(f"answer {answer!r} is not in the context")
    return min(offsets, key=lambda offset: abs(offset - expected))
