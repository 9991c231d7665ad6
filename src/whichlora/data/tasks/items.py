"""Defines the item types of the kinds of tasks, and the NLI labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

LABELS = ("entailment", "neutral", "contradiction")
"""The labels of natural language inference, in the order used everywhere."""


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a task in one language.

    Attributes:
        index: position in the split. In a parallel task, items with the same index are translations of each other, of
            which a mixture uses only one.
        id: unique within the split and the language; equal across the languages of a parallel task.
        stratum: group for stratified sampling, such as the label, combined with the genre if there is one.
    """

    index: int
    id: str
    language: str
    stratum: str


@dataclass(frozen=True, slots=True)
class NliItem(Item):
    """A premise, a hypothesis, and the label: the relation of the hypothesis to the premise."""

    premise: str
    hypothesis: str
    label: str


@dataclass(frozen=True, slots=True)
class QaItem(Item):
    """A question whose answers are spans of the context; `answer_start` is the character offset of the first answer."""

    context: str
    question: str
    answers: tuple[str, ...]
    answer_start: int


@dataclass(frozen=True, slots=True)
class PairItem(Item):
    """An English word and its translation into `language`."""

    word: str
    translation: str


@dataclass(frozen=True, slots=True)
class FieldsItem(Item):
    """An item of a declared task of kind `choice` or `text`.

    Attributes:
        fields: the texts that its prompt may contain, by name; `messages` is the JSON of the turns before the answer.
        answers: its label, or the accepted answers, of which the first is trained.
    """

    fields: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]

    @property
    def turns(self) -> list[dict[str, str]] | None:
        """The conversation before the answer; None if the item is none."""
        messages = dict(self.fields).get("messages")
        return None if messages is None else json.loads(messages)


def texts_of(item: Item) -> tuple[str, ...]:
    """Return the texts of an item with a prompt, in the order of the prompt; two for NLI and QA."""
    assert isinstance(item, NliItem | QaItem | FieldsItem)
    turns = item.turns if isinstance(item, FieldsItem) else None
    return tuple(named_texts(item).values()) if turns is None else tuple(turn["content"] for turn in turns)


def named_texts(item: Item) -> dict[str, str]:
    """Return the texts of an item by name; none for other kinds of items than those of this module."""
    if isinstance(item, NliItem):
        return {"premise": item.premise, "hypothesis": item.hypothesis}
    if isinstance(item, QaItem):
        return {"context": item.context, "question": item.question}
    if isinstance(item, PairItem):
        return {"word": item.word, "translation": item.translation}
    return dict(item.fields) if isinstance(item, FieldsItem) else {}


def unanswered(kind: str, texts: Mapping[str, str], base: Item) -> Item:
    """Return an item whose answer is not known, to predict it: of the kind that `kind_of` names.

    Args:
        texts: the item's texts by name, as `named_texts` returns them.
        base: its index, id, language and stratum.
    """
    common = base.index, base.id, base.language, base.stratum
    if kind == "nli":
        return NliItem(*common, premise=texts["premise"], hypothesis=texts["hypothesis"], label="")
    if kind == "qa":
        return QaItem(*common, context=texts["context"], question=texts["question"], answers=("",), answer_start=-1)
    return FieldsItem(*common, fields=tuple(texts.items()), answers=("",))


def kind_of(item: Item) -> str | None:
    """Return the name of an item's kind for `unanswered`; None for pairs of words and for kinds of other modules."""
    kinds = {NliItem: "nli", QaItem: "qa", FieldsItem: "fields"}
    return next((name for kind, name in kinds.items() if isinstance(item, kind)), None)
