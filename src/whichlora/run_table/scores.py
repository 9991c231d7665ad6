"""Reads the scores of a run from its metrics: the headline metric on each test set with its interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities import Run

from whichlora.data.logged_scores import interval_of
from whichlora.data.metric_names import WORDS_RETRIEVED, metric_name, scale_of
from whichlora.text_tables import Scale

_ROLES = ("en", "tl")
_SENTENCES = "p1"
"""The headline metric of sentence pairs, which are scored but not trained."""
_BEST = ("best/fresh_f1", "best/f1")
"""The metrics of a study's best point: with fresh seeds, and in the study."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score from 0 to 1.

    Attributes:
        key: the name of the metric in MLflow, such as `test/en/f1`.
        metric: its name for users, such as "F1".
        interval: the ends of its 95 % interval, over items or of a summary over seeds; None if none is logged.
        sd: the standard deviation over seeds; None if it is not that of a summary.
    """

    key: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    sd: float | None = None

    @property
    def scale(self) -> Scale:
        """The scale on which users read it."""
        return scale_of(self.key)


def scores_of(run: Run) -> dict[str, Score]:
    """Return a run's scores by test set (`en`, `retention/en`, ...); of trials `validation en`, of studies `best`.

    A score that has not been logged is left out, and so is the cross-entropy of general text, which is no score.
    """
    params, metrics = run.data.params, run.data.metrics
    headline = params.get("headline", "f1")
    kind = run.data.tags.get("whichlora.kind")
    if kind == "study":
        key = next((key for key in _BEST if key in metrics), None)
        return {"best": _score(metrics, key, "F1")} if key else {}
    found = {}
    for title, prefix in _places(params, kind):
        for name in (headline, "f1", WORDS_RETRIEVED, _SENTENCES):
            if f"{prefix}/{name}" in metrics:
                metric = metric_name(_SENTENCES if name == WORDS_RETRIEVED else name)
                found[title] = _score(metrics, f"{prefix}/{name}", metric)
                break
    return found


def _places(params: Mapping[str, str], kind: str | None) -> list[tuple[str, str]]:
    """Return the title and the prefix of the metrics of each test set, or of the validation items of a trial."""
    if kind == "trial":
        return [(f"validation {role}", f"validation/{role}") for role in _ROLES]
    try:
        names = tuple(json.loads(params["test_digests"]))
    except (KeyError, TypeError, ValueError):  # of another kind or another program
        names = _ROLES
    return [(name, f"test/{name}") for name in names]


def _score(metrics: Mapping[str, float], key: str, metric: str) -> Score:
    return Score(
        key=key,
        metric=metric,
        value=metrics[key],
        interval=interval_of(metrics, key),
        sd=metrics.get(f"{key}_sd"),
    )
