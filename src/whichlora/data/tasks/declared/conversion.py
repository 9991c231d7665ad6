"""Turns the rows of a declared task into items, and says of each row that cannot be used why."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whichlora.data.tasks.declared.columns import Missing, as_text, decoded, defect_of, is_blank, lookup
from whichlora.data.tasks.declared.conversations import conversation
from whichlora.data.tasks.declared.declaration import NOT_IN_PROMPT, Declaration
from whichlora.data.tasks.declared.labels import Labels
from whichlora.data.tasks.declared.prompting import control_of, prompt_of, texts_in_prompt, words_of
from whichlora.data.tasks.declared.reading import Rows, missing_column
from whichlora.data.tasks.declared.spans import located_answers, unit_of_offsets
from whichlora.data.tasks.declared.tables import Record
from whichlora.data.tasks.duplicates import normalized
from whichlora.data.tasks.items import FieldsItem, Item, QaItem
from whichlora.errors import did_you_mean


@dataclass(frozen=True)
class Converted:
    """An item and its group, which is not divided between splits: declared, or the same passage or texts."""

    item: Item
    group: str


@dataclass(frozen=True)
class Conversion:
    """The items of a part in one language, numbered from 0, and the rows that are none.

    Attributes:
        bad: location and reason of each row that cannot be used.
        bad_ids: ids of these rows, as far as they have one.
        positions_hold: whether the n-th row is the n-th of the data, although some are malformed.
        notes: what was noticed in the data, for users.
    """

    entries: tuple[Converted, ...]
    bad: tuple[str, ...]
    bad_ids: frozenset[str]
    positions_hold: bool
    notes: tuple[str, ...] = ()


class BadRowError(ValueError):
    """A row that is no item; the message says why."""


def convert(declaration: Declaration, found: Rows, language: str) -> Conversion:
    """Return the items of rows.

    Raises:
        OptionError: no row has one of the columns; the message names the most similar one.
    """
    needed = declaration.needed
    fields = found.fields
    optional = {name for name in fields if name in _texts(fields) and name not in needed}
    if problem := missing_column(declaration, found, optional):
        raise found.fail(problem)
    unit = _unit(fields, found.records) if declaration.kind == "span" else "characters"
    labels = Labels(declaration, found.tables[0].classes.get(str(fields.get("answer")), ()))
    make = functools.partial(_span, unit=unit) if declaration.kind == "span" else _MAKERS[declaration.kind]
    entries: list[Converted] = []
    bad: list[str] = []
    bad_ids: set[str] = set()
    ids: set[str] = set()
    for position, record in enumerate(found.records):
        values = _Values(fields, record, needed, labels)
        item_id = values.given_id() or f"{'#' if 'id' in fields else ''}{position}"
        try:
            if record.problem:
                raise BadRowError(record.problem)
            if item_id in ids:
                raise BadRowError(f"id {item_id} occurs twice")
            item = make(declaration, values, Item(index=len(entries), id=item_id, language=language, stratum=""))
            _check_prompts(declaration, item)
            if declaration.stratify:
                item = replace(item, stratum=f"{item.stratum} {values.scalar(declaration.stratify)}".strip())
            declared = declaration.group
            group = normalized(values.scalar(declared)) if declared else _implied_group(declaration, item)
        except BadRowError as error:
            bad.append(f"{record.location}: {error}")
            bad_ids.add(item_id)
            continue
        ids.add(item_id)
        entries.append(Converted(item, group))
    holds = "id" in fields or not any(record.problem for record in found.records)
    notes = () if unit == "characters" else (f"answer offsets are counted in {unit}",)
    return Conversion(tuple(entries), tuple(bad), frozenset(bad_ids - ids), holds, notes)


def _check_prompts(declaration: Declaration, item: Item) -> None:
    """Check that prompt and choices can be rendered in each language in which an item's may be written."""
    try:
        for language in {declaration.reference, item.language}:
            if is_blank(prompt_of(declaration, item, language)):
                raise BadRowError("the prompt is empty")
            if declaration.choices and any(map(is_blank, words_of(declaration, item, language))):
                raise BadRowError("a choice is empty")
            if control := control_of(declaration, item):
                prompt_of(declaration, control, language)
    except ValueError as error:
        raise BadRowError(str(error)) from error


def _implied_group(declaration: Declaration, item: Item) -> str:
    """Return the passage of a QA item, or the texts that the prompt of another item has, in one form for all copies."""
    texts = [item.context] if isinstance(item, QaItem) else texts_in_prompt(declaration, item).values()
    return "\n".join(map(normalized, texts))


def _texts(fields: Mapping[str, str | int]) -> list[str]:
    """Return the fields that a prompt may contain."""
    return [name for name in fields if name not in NOT_IN_PROMPT]


class _Values:
    """The fields of a record, by the names of the declaration."""

    def __init__(
        self, columns: Mapping[str, str | int], record: Record, needed: frozenset[str], labels: Labels
    ) -> None:
        self.columns, self.record, self.needed, self.labels = columns, record, needed, labels

    def value(self, name: str) -> Any:
        """Return the value of a field, or of a column that is none, as it is in the data."""
        column = self.columns.get(name, name)
        try:
            return lookup(self.record.values, column)
        except Missing as error:
            present = [str(key) for key in self.record.values]
            raise BadRowError(
                f"has no {str(column)!r}; it has {', '.join(present[:20])}{did_you_mean(str(column), present)}"
            ) from error

    def given_id(self) -> str:
        """Return the id that the data gives; empty if it gives none."""
        if "id" not in self.columns:
            return ""
        try:
            return as_text(self.value("id")) or ""
        except BadRowError:
            return ""

    def scalar(self, name: str) -> str:
        """Return a value as text, which may not be empty."""
        value = self.value(name)
        text = as_text(value)
        if not text:
            raise BadRowError(f"{name} is {'missing' if value is None or isinstance(value, dict | list) else 'empty'}")
        if defect := defect_of(text):
            raise BadRowError(f"{name} {defect}")
        return text

    def text(self, name: str) -> str:
        """Return a text as it is in the data, or a number as text; empty only if the prompt expects that."""
        try:
            value = self.value(name)
        except BadRowError:
            if name in self.needed:
                raise
            value = None
        text = "" if value is None or value != value else value if isinstance(value, str) else as_text(value)
        if text is None:
            raise BadRowError(f"{name} is a {'list' if isinstance(value, list) else type(value).__name__}, not a text")
        if defect := defect_of(text):
            raise BadRowError(f"{name} {defect}")
        if name in self.needed and is_blank(text):
            raise BadRowError(f"{name} is empty")
        return text

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Return the fields that a prompt may contain; at least one has a text."""
        found = tuple((name, self.text(name)) for name in _texts(self.columns))
        if found and all(is_blank(text) for _, text in found):
            raise BadRowError("all texts are empty")
        return found


def _choice(declaration: Declaration, values: _Values, base: Item) -> Item:
    try:
        label = values.labels.find(values.value("answer"), values.scalar("answer"))
    except ValueError as error:
        raise BadRowError(str(error)) from error
    return FieldsItem(base.index, base.id, base.language, label, fields=values.texts(), answers=(label,))


def _text(declaration: Declaration, values: _Values, base: Item) -> Item:
    if "messages" in values.columns:
        return _conversation(values, base)
    value = values.value("answer")
    listed = value if isinstance(value, list) else [value]
    texts = [text if isinstance(text, str) else as_text(text) for text in listed]
    answers = dict.fromkeys(text.strip() for text in texts if text is not None and not is_blank(text))
    if not answers:
        raise BadRowError("answer is empty")
    _check_defects("answer", answers)
    return FieldsItem(base.index, base.id, base.language, base.stratum, fields=values.texts(), answers=tuple(answers))


def _conversation(values: _Values, base: Item) -> Item:
    try:
        turns, answer = conversation(decoded(values.value("messages")))
    except ValueError as error:
        raise BadRowError(str(error)) from error
    _check_defects("messages", [*(turn["content"] for turn in turns), answer])
    fields = (*values.texts(), ("messages", json.dumps(turns, ensure_ascii=False)))
    return FieldsItem(base.index, base.id, base.language, base.stratum, fields=fields, answers=(answer.strip(),))


def _check_defects(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        if defect := defect_of(text):
            raise BadRowError(f"{name} {defect}")


_MAKERS: dict[str, Callable[[Declaration, _Values, Item], Item]] = {"choice": _choice, "text": _text}


def _span(declaration: Declaration, values: _Values, base: Item, *, unit: str) -> Item:
    context, question = values.text("context"), values.text("question")
    try:
        answers = located_answers(context, decoded(values.value("answers")), unit)
    except ValueError as error:
        raise BadRowError(str(error)) from error
    if not answers:
        impossible = values.record.values.get("is_impossible") is True
        raise BadRowError("has no answer" + " (is_impossible)" * impossible)
    return QaItem(
        base.index,
        base.id,
        base.language,
        base.stratum,
        context=context,
        question=question,
        answers=tuple(answers),
        answer_start=next(iter(answers.values())),
    )


def _unit(fields: Mapping[str, str | int], records: Sequence[Record]) -> str:
    """Return the unit in which most answers are where the data says."""
    pairs = []
    for record in records:
        try:
            pairs.append((lookup(record.values, fields["context"]), decoded(lookup(record.values, fields["answers"]))))
        except Missing:
            continue
    return unit_of_offsets(pairs)
