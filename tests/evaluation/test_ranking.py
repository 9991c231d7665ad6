"""Retrieval with tied candidates: the same definition for P@1, MRR, the retrieved text and mAP, and chance without
information.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from whichlora.data.metric_names import SENTENCES_RETRIEVED, WORDS_RETRIEVED
from whichlora.data.tasks.pairs.sentences import Tatoeba
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation.ranking import TOLERANCE, first_of_best, found_first, reciprocal_rank, tied_groups
from whichlora.evaluation.scoring_methods import Predictions, SentenceRetrieval, WordSimilarity
from whichlora.evaluation.translation_similarity import (
    BLOCK,
    CSLS_MEASURES,
    MEASURES,
    compare,
    compare_by_csls,
    nearest,
)
from whichlora.probing.retrieval.precision import DEPTH, average_precision, expected_precision

COUNT = 50
SEEDED = np.random.default_rng(0)
VECTOR = SEEDED.normal(size=24)
STATES = SEEDED.normal(size=(COUNT, 2, 24))


def collapsed(rows: Any, sides: Any = slice(None)) -> Any:
    states = STATES.copy()
    states[:, sides] = rows
    return states


@pytest.mark.parametrize(
    "states",
    [
        np.zeros((COUNT, 2, 24)),
        collapsed(1.0),
        collapsed(VECTOR),
        collapsed(VECTOR) * SEEDED.uniform(0.5, 2, size=(COUNT, 2, 1)),
        collapsed(VECTOR) * (1 + 1e-7 * SEEDED.normal(size=(COUNT, 2, 24))),  # rounded to fp32
        collapsed(VECTOR, 1),
        collapsed(VECTOR, 0),
    ],
    ids=["zero", "ones", "equal", "equal directions", "nearly equal", "equal translations", "equal words"],
)
def test_collapsed_states_score_chance(states: Any) -> None:
    pairs = [(f"a{i}", f"b{i}") for i in range(COUNT)]
    for dtype in (np.float32, np.float64):
        own = states.astype(dtype)
        values = np.concatenate([compare(own, pairs), compare_by_csls(own, pairs)], axis=1).mean(0)
        found = dict(zip((*MEASURES, *CSLS_MEASURES), values, strict=True))
        ways = ("to", "from")
        for space in ("raw", "centred", "csls"):
            assert [found[f"p1/{way}/{space}"] for way in ways] == pytest.approx([1 / COUNT] * 2)
            chance = sum(1 / rank for rank in range(1, COUNT + 1)) / COUNT
            assert [found[f"mrr/{way}/{space}"] for way in ways] == pytest.approx([chance] * 2)
        for centred in (False, True):
            hits = nearest(own[:, 0], own[:, 1], centred=centred) == np.arange(COUNT)
            assert hits.mean() == pytest.approx(1 / COUNT)


@pytest.mark.parametrize("groups", [2, 5, 10])
def test_states_of_several_groups_are_found_among_their_group(groups: int) -> None:
    states = STATES[np.arange(COUNT) % groups, :1].repeat(2, axis=1)
    pairs = [(f"a{i}", f"b{i}") for i in range(COUNT)]
    values = dict(zip(MEASURES, compare(states, pairs).mean(0), strict=True))
    size = COUNT // groups
    for space in ("raw", "centred"):
        assert values[f"p1/to/{space}"] == pytest.approx(1 / size)
        assert values[f"mrr/to/{space}"] == pytest.approx(sum(1 / rank for rank in range(1, size + 1)) / size)
    assert (nearest(states[:, 0], states[:, 1]) == np.arange(COUNT)).mean() == pytest.approx(1 / size)


@pytest.mark.parametrize("block", [1, 7, BLOCK])
def test_ties_do_not_depend_on_how_products_are_computed(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states = STATES[np.arange(COUNT) // 3]
    pairs = [(f"a{i}", f"b{i}") for i in range(COUNT)]
    whole = compare(states, pairs), compare_by_csls(states, pairs), nearest(states[:, 0], states[:, 1])
    monkeypatch.setattr("whichlora.evaluation.translation_similarity.BLOCK", block)
    parts = compare(states, pairs), compare_by_csls(states, pairs), nearest(states[:, 0], states[:, 1])
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("better", "tied"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_the_measures_are_means_over_all_orders_of_the_tied(better: int, tied: int) -> None:
    ranks = [better + 1 + order.index(0) for order in permutations(range(tied + 1))]
    counts = np.array([better]), np.array([tied])
    assert found_first(*counts) == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert reciprocal_rank(*counts) == pytest.approx(np.mean([1 / rank for rank in ranks]))


def test_average_precision_is_the_mean_over_all_orders_of_the_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whichlora.probing.retrieval.precision.DEPTH", 4)
    relevant, groups = {1, 3, 5}, [[0], [1, 2, 3], [4, 5, 6]]
    orders = [[0, *middle, *last] for middle in permutations(groups[1]) for last in permutations(groups[2])]
    mean = np.mean([average_precision(relevant, [[candidate] for candidate in order]) for order in orders])
    assert average_precision(relevant, groups) == pytest.approx(mean)


def test_equally_similar_sentences_have_the_precision_of_chance() -> None:
    similarities = 0.3 + 1e-13 * SEEDED.normal(size=200)
    groups = tied_groups(similarities, DEPTH)
    assert [len(group) for group in groups] == [200]
    assert average_precision({3, 50, 199}, groups) == pytest.approx(expected_precision(3, 200))


def test_tied_candidates_form_groups_and_the_last_is_whole() -> None:
    similarities = np.array([0.1, 0.9, 0.5, 0.5 + TOLERANCE / 2, 0.5, 0.2])
    assert [group.tolist() for group in tied_groups(similarities, 2)] == [[1], [3, 2, 4]]
    assert [len(group) for group in tied_groups(similarities, 20)] == [1, 3, 1, 1]
    assert first_of_best(similarities[None, 2:]).tolist() == [0]


def test_the_metric_of_a_run_is_the_measure() -> None:
    """With ties, the share of right answers among the retrieved texts may differ, which depends on their order."""
    words, sentences = (
        scoring.metrics(Tatoeba(), Predictions(predicted=["b"] * 4, measures={name: np.array([0.5, 0, 1, 0])}))
        for scoring, name in (
            (WordSimilarity(Pooling(1)), WORDS_RETRIEVED),
            (SentenceRetrieval(Pooling(1)), SENTENCES_RETRIEVED),
        )
    )
    assert (words, sentences) == ({"f1": 0.375}, {"p1": 0.375})
