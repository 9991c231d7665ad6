"""Scores a model on a task's items: by the likelihood of the labels, by what it writes, or by the states of words."""

from __future__ import annotations

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
from whichlora.evaluation.generation import generate
from whichlora.evaluation.inference import run_batched
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.evaluation.word_alignment import measure_pairs
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.loading import blocks_of
from whichlora.models.pooling import SITES, states_at_sites


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predictions for items in their order, and their metrics.

    Attributes:
        predicted: a label, the text written, or the translation found; None for an answer that is none of the labels.
        probabilities: (items, labels) for likelihood scoring, over the labels; None otherwise.
        metrics: `f1` and others from 0 to 1; `invalid_rate` when labels were generated; the means of `measures`.
        measures: for word pairs, the value of each of `injection.MEASURES` for each item, by name.
    """

    items: Sequence[Item]
    gold: list[tuple[str, ...]]
    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None
    labels: tuple[str, ...]
    metrics: dict[str, float]
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """Return a row an item: id, gold (the first accepted answer), predicted, `p_<label>` or measures if any."""
        columns: dict[str, Any] = {
            "id": [item.id for item in self.items],
            "gold": [answers[0] for answers in self.gold],
            "predicted": self.predicted,
        }
        if self.probabilities is not None:
            columns |= {f"p_{label}": self.probabilities[:, i] for i, label in enumerate(self.labels)}
        return pd.DataFrame({**columns, **self.measures})


@torch.inference_mode()
def score(model: Any, encoder: Encoder, items: Sequence[Item], *, scoring: str, name: str) -> Scores:
    """Score `items` with `scoring` "likelihood", "generate" or a `Pooling`; `name` is shown on the progress bar."""
    was_training = model.training
    model.eval()
    try:
        task = encoder.task
        predicted: list[str | None]
        probabilities, measures = None, dict[str, np.ndarray[Any, Any]]()
        if task.kind == "pair":
            states = word_states(model, encoder, items, Pooling.read(scoring), name=name)
            predicted, measures = measure_pairs(states, items)
        elif scoring == "likelihood":
            probabilities = label_probabilities(model, encoder, items, name=name)
            predicted = [task.labels[i] for i in probabilities.argmax(axis=1)]
        else:
            written = generate(model, encoder, items, name=name)
            if task.kind == "choice":
                predicted = [_label_in(text, task, item) for text, item in zip(written, items, strict=True)]
            else:
                predicted = list(written)
        gold = [task.gold(item) for item in items]
        metrics = task.metrics(predicted, gold) | {key: float(values.mean()) for key, values in measures.items()}
        if scoring == "generate" and task.kind == "choice":
            metrics["invalid_rate"] = predicted.count(None) / len(predicted)
        return Scores(
            items=items,
            gold=gold,
            predicted=predicted,
            probabilities=probabilities,
            labels=task.labels,
            metrics=metrics,
            measures=measures,
        )
    finally:
        model.train(was_training)


def word_states(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> np.ndarray[Any, Any]:
    """Return (`SITES`, items, 2, width): the states of each word and of its translation."""
    pairs = [encoder.pair(item) for item in items]
    sequences = [ids for pair in pairs for ids in (pair.word, pair.translation)]
    blocks = blocks_of(unwrap_peft(model))
    found: dict[int, np.ndarray[Any, Any]] = {}

    def read(batch: list[int]) -> None:
        states = states_at_sites(model, blocks, [sequences[i] for i in batch], pooling).cpu().numpy()
        found.update({i: states[:, row] for row, i in enumerate(batch)})

    run_batched([len(s) for s in sequences], read, name=name, unit="word")
    return np.stack([found[i] for i in range(len(sequences))], axis=1).reshape(len(SITES), len(items), 2, -1)


def _label_in(text: str, task: Task, item: Item) -> str | None:
    """Return the label whose word for this item the text begins with, or None."""
    start = text.strip().lower()
    words = zip(task.label_words(item), task.labels, strict=True)
    return next((label for word, label in words if start.startswith(word.lower())), None)
