"""The items of each kind of task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a task in one language.

    Attributes:
        index: position in the split. In a parallel task the same index is the same content in every
            language, so that a mixture can keep an index in one language only.
        id: unique within the split and the language, equal across the languages of a parallel task.
        stratum: what samples are balanced over (the label, and the genre where there is one).
    """

    index: int
    id: str
    language: str
    stratum: str


LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, slots=True)
class NliItem(Item):
    """A premise, a hypothesis, and the label that tells how the second follows from the first."""

    premise: str
    hypothesis: str
    label: str


@dataclass(frozen=True, slots=True)
class QaItem(Item):
    """A question whose answers are spans of the context; `answer_start` is where the first begins, in characters."""

    context: str
    question: str
    answers: tuple[str, ...]
    answer_start: int


@dataclass(frozen=True, slots=True)
class PairItem(Item):
    """An English word and its translation; `language` is the latter's."""

    word: str
    translation: str


def texts_of(item: Item) -> tuple[str, str]:
    """Return the two texts of an item, in the order of the prompt."""
    if isinstance(item, NliItem):
        return item.premise, item.hypothesis
    assert isinstance(item, QaItem)
    return item.context, item.question
