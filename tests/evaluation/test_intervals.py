"""Intervals over items: published values, coverage, and scores at 0 and 1."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from whichlora.data.tasks import get_task
from whichlora.evaluation.intervals import interval, wilson

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")


def answers(n: int, right: float, seed: int = 0) -> tuple[list[str | None], list[tuple[str, ...]]]:
    """Return NLI answers with a share of right ones."""
    rng = random.Random(seed)
    gold = [(rng.choice(NLI.labels),) for _ in range(n)]
    wrong = [next(label for label in NLI.labels if label != answer) for (answer,) in gold]
    return [g[0] if rng.random() < right else w for g, w in zip(gold, wrong, strict=True)], gold


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_as_published(right: int, n: int, low: float, high: float):
    """Newcombe 1998, Statistics in Medicine 17, Table I, method 3."""
    assert wilson(right / n, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("metric", ["f1", "macro_f1"])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_no_interval_is_empty_where_all_answers_are_right_or_wrong(metric: str, right: float):
    low, high = interval(NLI, *answers(40, right), metric)
    assert low <= right <= high
    assert 0.05 < high - low < 0.15


def test_accuracy_has_wilsons_interval():
    predicted, gold = answers(50, 0.7)
    share = NLI.metrics(predicted, gold)["f1"]
    assert interval(NLI, predicted, gold, "f1") == wilson(share, 50)
    assert interval(NLI, [None] * 50, gold, "f1") == wilson(0, 50)


@pytest.mark.parametrize("texts", [["a b c"], ["x"]])
def test_squad_f1_without_partial_answers_has_wilsons_interval(texts: list[str]):
    predicted, gold = texts * 20, [("a b c",)] * 20
    share = QA.metrics(predicted, gold)["f1"]
    assert interval(QA, predicted, gold, "f1") == wilson(share, 20)


def test_squad_f1_is_between_the_percentiles_of_resampled_means():
    rng = random.Random(0)
    predicted = [rng.choice(["w x y z", "w x", "q"]) for _ in range(400)]
    gold = [("w x y z", "v")] * 400
    values = np.array([QA.metrics([p], [g])["f1"] for p, g in zip(predicted, gold, strict=True)])
    low, high = interval(QA, predicted, gold, "f1")
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)
    assert interval(QA, predicted, gold, "f1") == (low, high)


def test_macro_f1_covers_its_expectation():
    """Of 40 samples of one distribution, the 95% intervals of nearly all contain the value of a very large sample."""
    truth = NLI.metrics(*answers(50_000, 0.6))["macro_f1"]
    found = [interval(NLI, *answers(60, 0.6, seed), "macro_f1") for seed in range(1, 41)]
    assert sum(low <= truth <= high for low, high in found) >= 34
    assert all(0.15 < high - low < 0.35 for low, high in found)


class _Copies(type(QA)):  # type: ignore[misc]
    """Scores texts by chrF as a corpus."""

    def metrics(self, predicted: Any, gold: Any) -> dict[str, float]:
        from sacrebleu.metrics import CHRF

        return {"chrf": CHRF().corpus_score(list(predicted), [[g[0] for g in gold]]).score / 100}


def test_chrf_is_resampled_as_a_corpus():
    """The fast resampling has the distribution of scores of resampled corpora."""
    rng = random.Random(0)
    gold = [("".join(rng.choices("abcdef ", k=30)),) for _ in range(60)]
    predicted = ["".join(c if rng.random() < 0.8 else "z" for c in text) for (text,) in gold]
    task = _Copies()
    low, high = interval(task, predicted, gold, "chrf")
    draws = [[rng.randrange(60) for _ in range(60)] for _ in range(300)]
    scores = [task.metrics([predicted[i] for i in d], [gold[i] for i in d])["chrf"] for d in draws]
    expected = np.quantile(scores, (0.025, 0.975))
    width = expected[1] - expected[0]
    assert (low, high) == (pytest.approx(expected[0], abs=0.15 * width), pytest.approx(expected[1], abs=0.15 * width))
