"""Scoring methods: likelihood of labels or of choices, generation, and similarity of words and of sentences.

Options are resolved to these objects before torch is needed, so torch is imported only in `predict`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whichlora.data.metric_names import SENTENCES_RETRIEVED, WORDS_RETRIEVED
from whichlora.data.tasks.base import Task
from whichlora.data.tasks.items import Item
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError

if TYPE_CHECKING:
    import numpy as np

    from whichlora.data.encoding import Encoder


class Scoring(ABC):
    """A scoring method. `str` returns its name in a run spec."""

    @abstractmethod
    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        """Return predictions for `items`; `name` is shown on the progress bar."""

    def metrics(self, task: Task, predictions: Predictions) -> dict[str, float]:
        """Return the metrics that are specific to this scoring method, or that replace those of the task."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a model for items; the attributes are as in `Scores`."""

    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None = None
    controls: Mapping[str, list[str | None]] = field(default_factory=dict)
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Likelihood(Scoring):
    """Predicts the most likely label."""

    def __str__(self) -> str:
        return "likelihood"

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        from whichlora.evaluation.likelihood import label_probabilities  # torch, which options do not need

        probabilities = label_probabilities(model, encoder, items, name=name)
        labels = encoder.task.labels
        return Predictions(predicted=[labels[i] for i in probabilities.argmax(axis=1)], probabilities=probabilities)


@dataclass(frozen=True)
class ChoiceLikelihood(Scoring):
    """Predicts the choice with the highest mean log-likelihood per token; the probabilities are a softmax of the means.

    The predictions of the controls are by the choices alone (`control`), and by their means minus those of the control
    (`adjusted`).
    """

    def __str__(self) -> str:
        return str(Likelihood())

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        from whichlora.evaluation.choices import choice_scores  # torch, which options do not need
        from whichlora.evaluation.likelihood import softmax

        scores = choice_scores(model, encoder, items, name=name)
        labels = encoder.task.labels

        def best(means: np.ndarray[Any, Any]) -> list[str | None]:
            return [labels[i] for i in means.argmax(axis=1)]

        controls = {}
        if scores.alone is not None:
            controls = {"control": best(scores.alone), "adjusted": best(scores.given - scores.alone)}
        return Predictions(predicted=best(scores.given), probabilities=softmax(scores.given), controls=controls)


@dataclass(frozen=True)
class Generation(Scoring):
    """Predicts the generated text; for tasks with labels, the label at the start of the text."""

    def __str__(self) -> str:
        return "generate"

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        from whichlora.evaluation.generation import generate  # torch, which options do not need

        texts = generate(model, encoder, items, name=name)
        if not encoder.task.labels:
            return Predictions(predicted=list(texts))
        return Predictions(predicted=[_label_in(t, encoder.task, item) for t, item in zip(texts, items, strict=True)])

    def metrics(self, task: Task, predictions: Predictions) -> dict[str, float]:
        predicted = predictions.predicted
        return {"invalid_rate": predicted.count(None) / len(predicted)} if task.labels else {}


@dataclass(frozen=True)
class WordSimilarity(Scoring):
    """Predicts the most similar of all translations in the set for each word, by pooled states."""

    pooling: Pooling

    def __str__(self) -> str:
        return str(self.pooling)

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        from whichlora.evaluation.word_alignment import measure_pairs  # torch, which options do not need
        from whichlora.evaluation.word_states import word_states

        states = word_states(model, encoder, items, self.pooling, name=name)
        predicted, measures = measure_pairs(states, items, name=name)
        return Predictions(predicted=list(predicted), measures=measures)

    def metrics(self, task: Task, predictions: Predictions) -> dict[str, float]:
        """Return P@1, in which tied translations share a hit, unlike in `predicted`."""
        return {"f1": float(predictions.measures[WORDS_RETRIEVED].mean())}


@dataclass(frozen=True)
class SentenceRetrieval(Scoring):
    """Predicts the most similar of all translations in the set for each sentence, by pooled states of one layer."""

    pooling: Pooling

    def __str__(self) -> str:
        return f"retrieval-{self.pooling}"

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        from whichlora.evaluation.sentence_retrieval import retrieve  # torch, which options do not need

        predicted, measures = retrieve(model, encoder, items, self.pooling, name=name)
        return Predictions(predicted=list(predicted), measures=measures)

    def metrics(self, task: Task, predictions: Predictions) -> dict[str, float]:
        """Return P@1, in which tied translations share a hit, unlike in `predicted`."""
        return {"p1": float(predictions.measures[SENTENCES_RETRIEVED].mean())}


def prompt_scoring(task: Task, name: str | None = None) -> Scoring:
    """Return the scoring method "likelihood" or "generate", or for None the default of a prompted task.

    Raises:
        OptionError: `name` is "likelihood", but the task has no labels; or "generate", but it has choices.
    """
    if name == "likelihood" and not task.labels:
        raise OptionError("scoring", name, f"{task.name} has no labels; allowed are generate, auto")
    if task.own_choices:
        if name == "generate":
            raise OptionError(
                "scoring", name, f"{task.name} has choices, which are compared; allowed are likelihood, auto"
            )
        return ChoiceLikelihood()
    return Likelihood() if task.labels and name != "generate" else Generation()


def _label_in(text: str, task: Task, item: Item) -> str | None:
    """Return the label whose word, in the language of the item's prompt, begins the text: the longest one, or None.

    A number is not the beginning of a longer one: 10 is not an answer of 1.
    """
    start = text.strip().lower()
    words = zip((word.lower() for word in task.label_words(item)), task.labels, strict=True)
    found = [(len(word), label) for word, label in words if start.startswith(word) and not _cuts_number(start, word)]
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _cuts_number(text: str, beginning: str) -> bool:
    """Return whether a text continues the number with which its beginning ends."""
    return beginning[-1:].isdigit() and text[len(beginning) :][:1].isdigit()
