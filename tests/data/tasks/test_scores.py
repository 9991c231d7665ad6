"""The metrics of NLI and QA against values computed by hand."""

from __future__ import annotations

import random

import pytest

from whichlora.data.tasks import get_task
from whichlora.data.tasks.items import LABELS
from whichlora.data.tasks.nli import macro_f1
from whichlora.data.tasks.qa import normalize, token_f1

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")
E, N, C = LABELS


def golds(*labels: str) -> list[tuple[str, ...]]:
    return [(label,) for label in labels]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("theatre another Ana", "theatre another ana"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("“quoted” – ‘text’…", "quoted text"),
        ("केन्या।", "केन्या"),
        ("کینیا میں۔", "کینیا میں"),
        ("কেনিয়া॥", "কেনিয়া"),
        ("డోడోమా, టాంజానియా", "డోడోమా టాంజానియా"),
        ("1,000 km", "1000 km"),
        (" \t\n", ""),
        ("The", ""),
        ("...", ""),
    ],
)
def test_normalised_texts(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("predicted", "gold", "f1"),
    [
        ("Dar es Salaam", "Dar es Salaam", 1),
        ("the Nile.", "Nile", 1),
        ("Nairobi", "Mombasa", 0),
        ("Dar", "Dar es Salaam", 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("in the city of Nairobi", "Nairobi city", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("new york new york", "new york", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("york new", "new york", 1),
        ("नैरोबी में", "नैरोबी।", 2 / 3),
        ("", "", 1),
        ("the", "", 1),
        ("", "Nairobi", 0),
        ("Nairobi", "the", 0),
    ],
)
def test_token_f1_of_a_pair(predicted, gold, f1):
    assert token_f1(predicted, gold) == pytest.approx(f1)
    assert token_f1(gold, predicted) == pytest.approx(f1)


def test_the_best_of_several_accepted_answers_counts():
    gold = [("Nairobi", "the city of Nairobi"), ("Lake Victoria", "Victoria"), ("Kilimanjaro",), ("Dodoma",)]
    metrics = QA.metrics(["city of Nairobi", "Victoria Falls", None, "dodoma"], gold)
    assert metrics["f1"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)  # 2 / 3 of Victoria, against 1 / 2 of the lake
    assert metrics["exact_match"] == pytest.approx(2 / 4)


def test_an_exact_answer_scores_one_in_both_and_a_wrong_one_nothing():
    items = QA.load("te", "validation")[:20]
    gold = [QA.gold(item) for item in items]
    assert QA.metrics([QA.answer(item) for item in items], gold) == {"f1": 1, "exact_match": 1}
    assert QA.metrics(["xyz"] * 20, gold) == {"f1": 0, "exact_match": 0}
    assert QA.metrics([None] * 20, gold) == {"f1": 0, "exact_match": 0}


def test_macro_f1_of_a_worked_example_with_an_invalid_answer():
    gold = golds(E, E, E, N, N, C)
    predicted = [E, E, N, N, None, C]
    # entailment: precision 1, recall 2/3, F1 4/5; neutral: 1/2, 1/2, 1/2; contradiction: 1
    assert NLI.metrics(predicted, gold) == pytest.approx({"f1": 4 / 6, "macro_f1": (4 / 5 + 1 / 2 + 1) / 3})


def test_a_label_never_given_and_never_right_counts_as_zero_in_macro_f1():
    assert NLI.metrics([E, E], golds(E, E)) == pytest.approx({"f1": 1, "macro_f1": 1 / 3})


def test_a_text_that_is_no_label_is_as_wrong_as_none():
    gold = golds(E, N, C)
    assert NLI.metrics([E, "invalid", C], gold) == NLI.metrics([E, None, C], gold)
    assert NLI.metrics([None] * 3, gold) == {"f1": 0, "macro_f1": 0}
    assert NLI.metrics([E, N, C], gold) == {"f1": 1, "macro_f1": 1}


@pytest.mark.parametrize("seed", range(5))
def test_micro_f1_is_accuracy(seed):
    """Micro-F1 pools over labels; an invalid answer is a false negative of the true label and a false positive of
    an answer beyond them."""
    rng = random.Random(seed)
    gold = rng.choices(LABELS, k=50)
    predicted = [rng.choice([g, *LABELS, None]) for g in gold]
    metrics = NLI.metrics(predicted, golds(*gold))
    classes = [*LABELS, None]
    hits = sum(sum(p == g == c for p, g in zip(predicted, gold, strict=True)) for c in classes)
    false_positives = sum(sum(p == c != g for p, g in zip(predicted, gold, strict=True)) for c in classes)
    false_negatives = sum(sum(g == c != p for p, g in zip(predicted, gold, strict=True)) for c in classes)
    assert metrics["f1"] == pytest.approx(2 * hits / (2 * hits + false_positives + false_negatives))
    assert metrics["f1"] == pytest.approx(sum(p == g for p, g in zip(predicted, gold, strict=True)) / 50)


@pytest.mark.parametrize("seed", range(40))
def test_macro_f1_is_scikit_learns_to_the_last_bit(seed):
    from sklearn.metrics import f1_score

    rng = random.Random(seed)
    n = rng.randint(1, 400)
    weights = [rng.random() for _ in range(4)]
    true = rng.choices(LABELS, weights[:3], k=n)
    predicted = rng.choices([*LABELS, "invalid"], weights, k=n)
    expected = f1_score(true, predicted, labels=list(LABELS), average="macro", zero_division=0)
    assert macro_f1(true, predicted, LABELS) == expected
