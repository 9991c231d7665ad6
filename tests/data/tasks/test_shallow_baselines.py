"""The shallow classifiers find a shortcut where there is one, and nothing where there is none."""

from __future__ import annotations

import random

import pytest

from whichlora.data.tasks.items import LABELS, NliItem
from whichlora.data.tasks.shallow_baselines import has_negation, nli_baselines, words_of


def item(index: int, premise: str, hypothesis: str, label: str, language: str = "en") -> NliItem:
    return NliItem(index, str(index), language, label, premise, hypothesis, label)


def items(n: int, seed: int, make) -> list[NliItem]:
    rng = random.Random(seed)
    return [item(i, *make(rng, LABELS[i % 3]), LABELS[i % 3]) for i in range(n)]


def words(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(n))


def telling_hypothesis(rng: random.Random, label: str) -> tuple[str, str]:
    return words(rng, 6), f"{words(rng, 3)} {dict(zip(LABELS, ('surely', 'perhaps', 'hardly'), strict=True))[label]}"


def telling_overlap(rng: random.Random, label: str) -> tuple[str, str]:
    premise = words(rng, 6)
    said = premise if label != "neutral" else words(rng, 6)
    return premise, f"not {said}" if label == "contradiction" else f"so {said}"


def telling_nothing(rng: random.Random, label: str) -> tuple[str, str]:
    return words(rng, 6), words(rng, 4)


@pytest.mark.parametrize(
    ("make", "hypothesis_only", "overlap"),
    [
        (telling_hypothesis, (0.95, 1), (0.2, 0.47)),
        (telling_overlap, (0.5, 0.75), (0.95, 1)),
        (telling_nothing, (0.2, 0.47), (0.2, 0.47)),
    ],
)
def test_each_classifier_finds_its_own_shortcut(make, hypothesis_only, overlap):
    floors = nli_baselines(items(300, 1, make), items(150, 2, make))
    assert hypothesis_only[0] <= floors["hypothesis_only"] <= hypothesis_only[1]
    assert overlap[0] <= floors["overlap"] <= overlap[1]
    assert floors["majority"] == pytest.approx(1 / 3)
    assert set(floors) == {"majority", "hypothesis_only", "overlap"}


def test_majority_is_the_most_frequent_label_of_training():
    train = [item(i, "a b", "a", "neutral" if i < 8 else "entailment") for i in range(12)]
    test = [item(i, "a b", "a", "neutral" if i < 1 else "entailment") for i in range(4)]
    assert nli_baselines(train, test)["majority"] == 0.25


def test_three_items_are_enough_to_train_on():
    floors = nli_baselines(items(3, 5, telling_nothing), items(30, 6, telling_nothing))
    assert all(0 <= floor <= 1 for floor in floors.values())


def test_floors_are_the_same_twice():
    train, test = items(120, 3, telling_nothing), items(60, 4, telling_nothing)
    assert nli_baselines(train, test) == nli_baselines(train, test)


@pytest.mark.parametrize(
    ("language", "plain", "negated"),
    [
        ("en", "Asha lives in Norway.", "Asha doesn't live in Norway."),
        ("ur", "آشا ناروے میں رہتی ہے۔", "آشا ناروے میں نہیں رہتی۔"),
        ("sw", "Hassan anaishi Harare.", "Hassan haishi Harare."),
        ("hi", "नीना घाना में रहती है।", "नीना घाना में नहीं रहती।"),
        ("bn", "নিনা ঘানা দেশে থাকেন।", "নিনা ঘানা দেশে জন্মগ্রহণ করেননি।"),
        ("te", "ఆశా ఘనా దేశంలో జన్మించారు.", "ఆశా ఘనా దేశంలో జన్మించలేదు."),
    ],
)
def test_negation_in_each_language(language, plain, negated):
    assert not has_negation(plain, language)
    assert has_negation(negated, language)


def test_a_language_without_a_list_has_no_negation():
    assert not has_negation("Sie wohnt nicht in Norwegen.", "de")


def test_words_keep_their_combining_marks():
    assert words_of("नीना केन्या में रहती है।") == ["नीना", "केन्या", "में", "रहती", "है"]
    assert words_of("Asha, isn't in Côte.") == ["asha", "isn't", "in", "côte"]
