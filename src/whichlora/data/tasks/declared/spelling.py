"""Other spellings of a declaration: numbers among labels, other names of metrics, `output` for the answer of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYNONYMS = {"micro_f1": "f1", "token_f1": "f1", "em": "exact_match"}
"""Other names of metrics."""


def in_one_spelling(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a declaration, of which nothing has been checked yet, in the spelling of the schema."""
    same = dict(content)
    if isinstance(labels := content.get("labels"), dict | list):
        same["labels"] = _numbers_as_text(labels)
    if isinstance(metrics := content.get("metrics"), list):
        same["metrics"] = [SYNONYMS.get(name, name) if isinstance(name, str) else name for name in metrics]
    if content.get("kind") != "text":
        return same
    data = content.get("data")
    if data:
        same["data"] = [_with_answer(layout) for layout in data] if isinstance(data, list) else _with_answer(data)
    return _with_answer(same)  # type: ignore[no-any-return]


def _numbers_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers_as_text(word) for key, word in value.items()}
    if isinstance(value, list):
        return [_numbers_as_text(word) for word in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _with_answer(section: Any) -> Any:
    """Return a section in which the field `output` is called `answer`, as that of a choice."""
    fields = section.get("fields") if isinstance(section, dict) else None
    if not isinstance(fields, dict) or "output" not in fields or "answer" in fields:
        return section
    return section | {"fields": {("answer" if name == "output" else name): column for name, column in fields.items()}}
