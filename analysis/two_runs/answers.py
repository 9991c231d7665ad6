"""Compares the answers of two runs item by item: McNemar's exact test or the paired bootstrap, and what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run
from numpy.typing import NDArray

from analysis.records import NotTestable, Result
from analysis.runs.predictions import UNREADABLE, read_answers
from analysis.stats.paired import bootstrap, mcnemar
from whichlora.errors import OptionError, first_line
from whichlora.run_table.scores import Score, scores_of


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on one test set.

    Attributes:
        scores: the logged headline scores.
        unlike: why the answers cannot be compared item by item, or "".
        items: id, gold, first, second (the answers), first_score and second_score (0 to 1), a row per item.
        right: whether answers are right or wrong; else they are scored in parts, as by token F1.
        difference: mean of first minus second in points, with the bootstrap's interval and p.
        mcnemar: McNemar's exact test; None if answers are scored in parts or never disagree.
    """

    test_set: str
    scores: tuple[Score, Score]
    unlike: str = ""
    items: pd.DataFrame | None = None
    right: bool = True
    difference: Result | None = None
    mcnemar: Result | None = None

    def discordant(self) -> tuple[int, int]:
        """Return the number of items on which only the first run is right (or scores higher), and only the second."""
        assert self.items is not None
        higher = self.items["first_score"] - self.items["second_score"]
        return int((higher > 0).sum()), int((higher < 0).sum())

    def differing(self) -> pd.DataFrame:
        """Return the items with different answers, those with the largest difference in score first."""
        assert self.items is not None
        frame = self.items[self.items["first"] != self.items["second"]]
        gap = (frame["first_score"] - frame["second_score"]).abs()
        return frame.loc[gap.sort_values(ascending=False, kind="stable").index]


def compare(first: Run, second: Run) -> list[Comparison]:
    """Compare two runs on the test sets that both have scores on.

    Raises:
        OptionError: predictions of a run are missing or cannot be read.
    """
    scores = scores_of(first), scores_of(second)
    return [
        _on_one_set(name, (scores[0][name], scores[1][name]), first, second)
        for name in scores[0]
        if name in scores[1] and scores[0][name].key.startswith("test/")
    ]


def _on_one_set(name: str, scores: tuple[Score, Score], first: Run, second: Run) -> Comparison:
    digests = _digest(first, name), _digest(second, name)
    if None not in digests and digests[0] != digests[1]:
        return Comparison(test_set=name, scores=scores, unlike="the runs were scored on other items")
    frames = [_read(option, run, name) for option, run in (("first", first), ("second", second))]
    one, two = (frame.set_index("id") for frame in frames)
    if not (one.index.is_unique and one.index.sort_values().equals(two.index.sort_values())):
        return Comparison(test_set=name, scores=scores, unlike="the runs were scored on other items")
    two = two.loc[one.index]
    if (one["gold"] != two["gold"]).any():
        return Comparison(test_set=name, scores=scores, unlike="the items have other right answers")
    items = pd.DataFrame(
        {
            "id": one.index,
            "gold": one["gold"].to_numpy(),
            "first": one["predicted"].to_numpy(),
            "second": two["predicted"].to_numpy(),
            "first_score": one["score"].to_numpy(),
            "second_score": two["score"].to_numpy(),
        }
    )
    right = bool(np.isin(items[["first_score", "second_score"]], (0, 1)).all())
    pair = items["first_score"].to_numpy(), items["second_score"].to_numpy()
    return Comparison(
        test_set=name,
        scores=scores,
        items=items,
        right=right,
        difference=_attempt(lambda: bootstrap(*pair, np.arange(len(items)))),
        mcnemar=_attempt(lambda: mcnemar(_table(*pair), exact=True)) if right else None,
    )


def _attempt(test: Callable[[], Result]) -> Result | None:
    try:
        return test()
    except NotTestable:  # the runs score the same on every item, or there is one item only
        return None


def _table(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[list[int]]:
    """Return the counts of items by whether the first run (rows) and the second (columns) is right, then wrong."""
    return [[int(((first == i) & (second == j)).sum()) for j in (1, 0)] for i in (1, 0)]


def _digest(run: Run, name: str) -> str | None:
    """Return the digest of the items of a test set; None if the run has not logged it."""
    params = run.data.params
    try:
        return str(json.loads(params["test_digests"])[name])
    except (KeyError, TypeError, ValueError):
        return params.get("test_digest")  # of a run of kind base, which has one test set


def _read(option: str, run: Run, name: str) -> pd.DataFrame:
    """Return id, gold, predicted and score (0 to 1) of each item.

    Raises:
        OptionError: the predictions are missing or cannot be read.
    """
    run_id = run.info.run_id
    try:
        answers = read_answers(run.info.artifact_uri, run_id, name)
    except UNREADABLE as error:
        raise OptionError(
            option, run_id, f"has no {name} predictions that can be read ({first_line(error)})"
        ) from error
    gold, predicted = answers.gold.to_pandas(), answers.predicted.to_pandas()
    exact = f"test/{name}/macro_f1" in run.data.metrics  # labels are right or wrong, also without probabilities
    score = (gold == predicted).to_numpy(dtype=float) if exact else answers.scores[0].astype(float)
    return pd.DataFrame({"id": answers.ids.to_pandas(), "gold": gold, "predicted": predicted, "score": score})
