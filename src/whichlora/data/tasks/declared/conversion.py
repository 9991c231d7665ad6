"""Turns the rows of a declared task into items, and collects those that cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.files import Row
from whichlora.data.tasks.items import FieldsItem, Item, QaItem
from whichlora.data.tasks.spans import accepted_answers, answer_offset
from whichlora.errors import OptionError, did_you_mean

LISTED = 10
"""Number of unusable items that an error lists."""


@dataclass(frozen=True)
class Converted:
    """An item and the value of its group, by which it is held out."""

    item: Item
    group: str


class BadRowError(ValueError):
    """A row that is no item; the message says why."""


def convert(
    declaration: Declaration, fields: dict[str, str | int], rows: Sequence[Row], language: str
) -> list[Converted]:
    """Return the items of rows, numbered from 0.

    Raises:
        OptionError: rows cannot be used and the declaration does not say `on_bad: skip`; the message counts them and
            lists the first ten.
    """
    make: dict[str, Callable[[Declaration, _Fields, Item], Item]] = {"choice": _choice, "span": _span, "text": _text}
    items: list[Converted] = []
    bad: list[str] = []
    ids: set[str] = set()
    for position, row in enumerate(rows):
        try:
            values = _Fields(fields, row)
            item_id = values.scalar("id") if "id" in fields else str(position)
            if item_id in ids:
                raise BadRowError(f"id {item_id} occurs twice")
            base = Item(index=len(items), id=item_id, language=language, stratum="")
            item = make[declaration.kind](declaration, values, base)
            if declaration.stratify:
                item = replace(item, stratum=f"{item.stratum} {values.scalar(declaration.stratify)}".strip())
            group = values.scalar(declaration.group) if declaration.group else ""
        except BadRowError as error:
            bad.append(f"{row.location}: {error}")
            continue
        ids.add(item_id)
        items.append(Converted(item, group))
    if bad:
        _report(declaration, rows[0].source, bad, len(rows))
    return items


def _report(declaration: Declaration, source: str, bad: list[str], total: int) -> None:
    listed = "; ".join(bad[:LISTED]) + ("; ..." if len(bad) > LISTED else "")
    message = f"{len(bad)} of {total} items cannot be used: {listed}"
    if declaration.on_bad == "fail":
        raise OptionError("data_dir", source, f"{message}. `on_bad: skip` in the task's file leaves them out")
    warnings.warn(f"{declaration.task}: left out, since {message}", stacklevel=2)


class _Fields:
    """The fields of a row, by the names of the declaration."""

    def __init__(self, columns: dict[str, str | int], row: Row) -> None:
        self.columns, self.row = columns, row

    def value(self, name: str) -> Any:
        """Return a field's value as it is in the data."""
        column = self.columns[name]
        values: Any = self.row.values
        if isinstance(column, int):
            cells = list(values.values())
            if not 1 <= column <= len(cells):
                raise BadRowError(f"has no column {column} for {name}")
            return cells[column - 1]
        if column in values:
            return values[column]
        for key in column.split("."):
            if not isinstance(values, dict) or key not in values:
                present = [str(k) for k in self.row.values]
                raise BadRowError(f"has no {column!r}; it has {', '.join(present)}{did_you_mean(column, present)}")
            values = values[key]
        return values

    def scalar(self, name: str) -> str:
        """Return a value as text: whole numbers without a decimal point, booleans in lower case."""
        value = self.value(name)
        if value is None or isinstance(value, dict | list):
            raise BadRowError(f"{name} is missing")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = (str(value).lower() if isinstance(value, bool) else str(value)).strip()
        if not text:
            raise BadRowError(f"{name} is empty")
        return text

    def text(self, name: str) -> str:
        """Return a text that is not empty, as it is in the data."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise BadRowError(f"{name} is {'empty' if value in (None, '') or isinstance(value, str) else 'not a text'}")
        return value

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Return the fields that a prompt may contain; those without a text are empty."""
        names = [name for name in self.columns if name not in ("id", "answer", "answers", "messages")]
        return tuple((name, "" if (value := self.value(name)) is None else str(value)) for name in names)


def _choice(declaration: Declaration, values: _Fields, base: Item) -> Item:
    label = values.scalar("answer")
    names = declaration.label_names
    if label not in names:
        raise BadRowError(f"label {label!r} is not declared{did_you_mean(label, names)}")
    fields = values.texts()
    if not any(text.strip() for _, text in fields):
        raise BadRowError("all texts are empty")
    return FieldsItem(base.index, base.id, base.language, names[label], fields=fields, answers=(names[label],))


def _span(declaration: Declaration, values: _Fields, base: Item) -> Item:
    context = values.text("context")
    answers: dict[str, int] = {}
    try:
        for answer, start in accepted_answers(values.value("answers")):
            answers.setdefault(answer, answer_offset(context, answer, start))
    except ValueError as error:
        raise BadRowError(str(error)) from error
    if not answers:
        raise BadRowError("has no answer")
    return QaItem(
        base.index,
        base.id,
        base.language,
        base.language,
        context=context,
        question=values.text("question"),
        answers=tuple(answers),
        answer_start=next(iter(answers.values())),
    )


def _text(declaration: Declaration, values: _Fields, base: Item) -> Item:
    answer = values.value("answer")
    answers = tuple(answer) if isinstance(answer, list) else (answer,)
    if not answers or not all(isinstance(text, str) and text.strip() for text in answers):
        raise BadRowError("answer is empty or not a text")
    return FieldsItem(base.index, base.id, base.language, base.language, fields=values.texts(), answers=answers)
