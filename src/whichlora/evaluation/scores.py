"""Scores a model on the items of a task: predictions and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from whichlora.data.encoding import Encoder
from whichlora.data.tasks.items import Item
from whichlora.evaluation import language_consistency
from whichlora.evaluation.scoring_methods import Generation, Predictions, Scoring

CONTROL_PREFIX = "predicted_"
"""Begins the names of the columns with the predictions of controls."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predictions for items, in the order of the items, and their metrics.

    Attributes:
        gold: the accepted answers of each item.
        predicted: by item, a label, the generated text or the retrieved translation; None if text matches no label.
        probabilities: (items, labels), normalised over the labels, for likelihood scoring; None otherwise.
        metrics: `f1` and others from 0 to 1; `invalid_rate` when labels were generated; the means of `measures`; the F1
            of each control, such as `control_f1`.
        measures: for pairs of words or sentences, the values of each measure of similarity, (items,), by name; for
            generated texts whether they, and the accepted answers, are in the language of the item.
        controls: for choices, what other scores than theirs predict, by name, see `ChoiceLikelihood`.
    """

    items: Sequence[Item]
    gold: list[tuple[str, ...]]
    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None
    labels: tuple[str, ...]
    metrics: dict[str, float]
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    controls: Mapping[str, list[str | None]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """Return one row per item: `id`, `gold` (the first accepted answer), `predicted`, `p_<label>`, the controls'
        predictions, and measures.

        Ids that occur in several languages begin with the language, as in `tr/17`.
        """
        ids = [item.id for item in self.items]
        if len(set(ids)) < len(ids):
            ids = [f"{item.language}/{item.id}" for item in self.items]
        columns: dict[str, Any] = {
            "id": ids,
            "gold": [answers[0] for answers in self.gold],
            "predicted": self.predicted,
        }
        if self.probabilities is not None:
            columns |= {f"p_{label}": self.probabilities[:, i] for i, label in enumerate(self.labels)}
        columns |= {f"{CONTROL_PREFIX}{name}": predicted for name, predicted in self.controls.items()}
        return pd.DataFrame({**columns, **self.measures})


def score(model: Any, encoder: Encoder, items: Sequence[Item], *, scoring: Scoring, name: str) -> Scores:
    """Score a model on `items` in eval mode; `name` is shown on the progress bar."""
    task = encoder.task
    predictions = predict(model, encoder, items, scoring=scoring, name=name)
    gold = [task.gold(item) for item in items]
    measures = dict(predictions.measures)
    counts: dict[str, float] = {}
    if isinstance(scoring, Generation) and not task.labels:
        languages = [item.language for item in items]
        measures[language_consistency.MEASURE] = language_consistency.in_language(predictions.predicted, languages)
        measures[language_consistency.GOLD] = language_consistency.in_language([text for text, *_ in gold], languages)
        counted = ~np.isnan(measures[language_consistency.MEASURE])
        counts[f"{language_consistency.MEASURE}_answers"] = float(counted.sum())
    means = {
        measure: float(np.nanmean(values))
        for measure, values in measures.items()
        if not np.isnan(values).all()  # not defined: there are no random pairs, or no answer is long enough
    }
    controls = {f"{name}_f1": task.metrics(p, gold)["f1"] for name, p in predictions.controls.items()}
    return Scores(
        items=items,
        gold=gold,
        predicted=predictions.predicted,
        probabilities=predictions.probabilities,
        labels=task.labels,
        metrics=task.metrics(predictions.predicted, gold)
        | controls
        | means
        | counts
        | scoring.metrics(task, predictions),
        measures=measures,
        controls=predictions.controls,
    )


@torch.inference_mode()
def predict(model: Any, encoder: Encoder, items: Sequence[Item], *, scoring: Scoring, name: str) -> Predictions:
    """Return the predictions of a model in eval mode, without a look at the items' answers."""
    was_training = model.training
    model.eval()
    try:
        return scoring.predict(model, encoder, items, name=name)
    finally:
        model.train(was_training)
