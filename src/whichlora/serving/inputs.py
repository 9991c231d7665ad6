"""Makes items, whose answers are not known, of the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from whichlora.data.tasks import Task
from whichlora.data.tasks.declared.columns import as_text, decoded, defect_of, is_blank
from whichlora.data.tasks.declared.conversations import turns_before_answer
from whichlora.data.tasks.items import Item, unanswered
from whichlora.errors import OptionError, check_choice, did_you_mean
from whichlora.serving.saved import SavedModel

LANGUAGE = "language"
"""Column with the language of an item, where prompts depend on it."""


def items_of(frame: pd.DataFrame, saved: SavedModel, task: Task) -> list[Item]:
    """Return an item for each row of a table, in order.

    Messages and items name a row by its label in the index, if that is a text, or else by its number.

    Raises:
        OptionError: a column is missing, or a row has no text in it, or one that cannot be used.
    """
    wanted = saved.input
    needed = [name for name in wanted.texts if name not in wanted.optional]
    needed += [LANGUAGE] * wanted.needs_language
    for name in needed:
        if name not in frame.columns:
            present = [str(column) for column in frame.columns]
            listed = f"; it has {', '.join(present[:20])}{did_you_mean(name, present)}" if present else ""
            raise OptionError("input", f"{len(frame)} rows", f"has no column {name}{listed}")
    columns = [name for name in (*wanted.texts, LANGUAGE) if name in frame.columns]
    rows = zip(*(frame[name].tolist() for name in columns), strict=True)
    places = [label if isinstance(label, str) else f"row {number}" for number, label in enumerate(frame.index, 1)]
    return [
        _item(number, place, dict(zip(columns, row, strict=True)), saved, task)
        for number, (place, row) in enumerate(zip(places, rows, strict=True))
    ]


def _item(number: int, place: str, row: Mapping[str, Any], saved: SavedModel, task: Task) -> Item:
    wanted = saved.input
    language = saved.languages[-1]
    if wanted.needs_language:
        language = check_choice(f"input: {place}: {LANGUAGE}", _text(row, LANGUAGE, place), task.languages)
        task.check_prompts([language])
    texts = {name: _text(row, name, place, optional=name in wanted.optional) for name in wanted.texts}
    return unanswered(wanted.kind, texts, Item(number, place, language, ""))


def _text(row: Mapping[str, Any], name: str, place: str, *, optional: bool = False) -> str:
    """Return a cell as text; a conversation as the JSON of its turns."""
    value = row.get(name)
    if name == "messages":
        return _conversation(value, place)
    missing = value is None or (not isinstance(value, list | dict) and bool(pd.isna(value)))
    text = "" if missing else value if isinstance(value, str) else as_text(value)
    if text is None:
        raise OptionError("input", place, f"{name} is a {type(value).__name__}, not a text")
    if defect := defect_of(text):
        raise OptionError("input", place, f"{name} {defect}")
    if is_blank(text) and not optional:
        raise OptionError("input", place, f"{name} is {'missing' if missing else 'empty'}")
    return text


def _conversation(value: Any, place: str) -> str:
    try:
        turns = turns_before_answer(decoded(value))
    except ValueError as error:
        raise OptionError("input", place, str(error)) from error
    for turn in turns:
        if defect := defect_of(turn["content"]):
            raise OptionError("input", place, f"messages {defect}")
    return json.dumps(turns, ensure_ascii=False)
