"""Scores a model on a task's items by label likelihood, by generated text, or by the similarity of word states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from whichlora.data.encoding import Encoder
from whichlora.data.tasks.base import Task
from whichlora.data.tasks.items import Item
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError
from whichlora.evaluation.generation import generate
from whichlora.evaluation.inference import run_batched
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.evaluation.word_alignment import measure_pairs
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.loading import blocks_of
from whichlora.models.pooling import SITES, states_at_sites


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predictions for items, in the order of the items, and their metrics.

    Attributes:
        gold: the accepted answers of each item.
        predicted: a label, the generated text, or the retrieved translation; None for text that matches no label.
        probabilities: (items, labels), normalised over the labels, for likelihood scoring; None otherwise.
        metrics: `f1` and others from 0 to 1; `invalid_rate` when labels were generated; the means of `measures`.
        measures: for word pairs, the values of each of `word_alignment.MEASURES`, (items,), by name.
    """

    items: Sequence[Item]
    gold: list[tuple[str, ...]]
    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None
    labels: tuple[str, ...]
    metrics: dict[str, float]
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """Return one row per item: id, gold (the first accepted answer), predicted, `p_<label>`, measures."""
        columns: dict[str, Any] = {
            "id": [item.id for item in self.items],
            "gold": [answers[0] for answers in self.gold],
            "predicted": self.predicted,
        }
        if self.probabilities is not None:
            columns |= {f"p_{label}": self.probabilities[:, i] for i, label in enumerate(self.labels)}
        return pd.DataFrame({**columns, **self.measures})


class Scoring(ABC):
    """A scoring method. `str` returns its name in a run spec."""

    @abstractmethod
    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        """Return predictions for `items`; `name` is shown on the progress bar."""

    def metrics(self, task: Task, predicted: Sequence[str | None]) -> dict[str, float]:
        """Return the metrics that are specific to this scoring method."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a model for items; the attributes are as in `Scores`."""

    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None = None
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Likelihood(Scoring):
    """Predicts the most likely label."""

    def __str__(self) -> str:
        return "likelihood"

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        probabilities = label_probabilities(model, encoder, items, name=name)
        labels = encoder.task.labels
        return Predictions(predicted=[labels[i] for i in probabilities.argmax(axis=1)], probabilities=probabilities)


@dataclass(frozen=True)
class Generation(Scoring):
    """Predicts the generated text; for tasks with labels, the label with which the text begins."""

    def __str__(self) -> str:
        return "generate"

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        texts = generate(model, encoder, items, name=name)
        if not encoder.task.labels:
            return Predictions(predicted=list(texts))
        return Predictions(predicted=[_label_in(t, encoder.task, item) for t, item in zip(texts, items, strict=True)])

    def metrics(self, task: Task, predicted: Sequence[str | None]) -> dict[str, float]:
        return {"invalid_rate": predicted.count(None) / len(predicted)} if task.labels else {}


@dataclass(frozen=True)
class WordSimilarity(Scoring):
    """Retrieves the translation of each word from those of the set, by the similarity of pooled states."""

    pooling: Pooling

    def __str__(self) -> str:
        return str(self.pooling)

    def predict(self, model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> Predictions:
        predicted, measures = measure_pairs(word_states(model, encoder, items, self.pooling, name=name), items)
        return Predictions(predicted=list(predicted), measures=measures)


def prompt_scoring(task: Task, name: str | None = None) -> Scoring:
    """Return the scoring named "likelihood" or "generate", or for None the default of a prompted task.

    Raises:
        OptionError: The task has no labels to compare by likelihood.
    """
    if name == "likelihood" and not task.labels:
        raise OptionError("scoring", name, f"{task.name} has no labels; allowed is generate")
    return Likelihood() if task.labels and name != "generate" else Generation()


@torch.inference_mode()
def score(model: Any, encoder: Encoder, items: Sequence[Item], *, scoring: Scoring, name: str) -> Scores:
    """Score a model, in evaluation mode, on `items`; `name` is shown on the progress bar."""
    was_training = model.training
    model.eval()
    try:
        task = encoder.task
        predictions = scoring.predict(model, encoder, items, name=name)
        gold = [task.gold(item) for item in items]
        means = {measure: float(values.mean()) for measure, values in predictions.measures.items()}
        return Scores(
            items=items,
            gold=gold,
            predicted=predictions.predicted,
            probabilities=predictions.probabilities,
            labels=task.labels,
            metrics=task.metrics(predictions.predicted, gold) | means | scoring.metrics(task, predictions.predicted),
            measures=predictions.measures,
        )
    finally:
        model.train(was_training)


def word_states(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> np.ndarray[Any, Any]:
    """Return the pooled states of each word and its translation: (sites, items, 2, width), sites as in `SITES`."""
    pairs = [encoder.pair(item) for item in items]
    sequences = [ids for pair in pairs for ids in (pair.word, pair.translation)]
    blocks = blocks_of(unwrap_peft(model))
    states_of: dict[int, np.ndarray[Any, Any]] = {}

    def read(batch: list[int]) -> None:
        states = states_at_sites(model, blocks, [sequences[i] for i in batch], pooling).cpu().numpy()
        states_of.update({i: states[:, row] for row, i in enumerate(batch)})

    run_batched([len(s) for s in sequences], read, name=name, unit="word")
    return np.stack([states_of[i] for i in range(len(sequences))], axis=1).reshape(len(SITES), len(items), 2, -1)


def _label_in(text: str, task: Task, item: Item) -> str | None:
    """Return the label whose word, as in the prompt of the item, starts the text, or None."""
    start = text.strip().lower()
    words = zip(task.label_words(item), task.labels, strict=True)
    return next((label for word, label in words if start.startswith(word.lower())), None)
