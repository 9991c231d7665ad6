"""Item sets: exact counts, nested, one language an index, and independent of what they must not depend on."""

from __future__ import annotations

import functools
from collections import Counter
from itertools import pairwise

import pytest
from drawing import Drawn, draw_all

from whichlora.data.mixture import texts_digest, trained_count
from whichlora.data.tasks import get_task
from whichlora.data.tasks.base import Sizes, Task
from whichlora.data.tasks.items import LABELS, Item
from whichlora.errors import OptionError

RATIOS = (0.0, 0.01, 0.25, 0.3, 0.5, 0.75, 1.0)
POOL = {"train": 240, "validation": 30, "test": 36}


class Parallel(Task):
    """Items without texts; the label is the stratum."""

    name = "small"
    languages = ("en", "sw", "hi")
    pooled = ("sw", "hi")
    parallel = True
    kind = "choice"
    labels = LABELS
    prompt_version = "1"
    answer_tokens = 4
    sizes = Sizes(train=20, validation=5, test=5)

    def load(self, language, split, *, data_dir=None, difficulty="normal"):
        return [Item(i, f"{split}-{i}", language, LABELS[i % 3]) for i in range(POOL[split])]

    def prompt(self, item):
        return f"{item.language} {item.id}"

    def answer(self, item):
        return f" {item.stratum}"

    def gold(self, item):
        return (item.stratum,)

    def metrics(self, predicted, gold):
        return {"f1": 0.0}


class Separate(Parallel):
    """Each language has items of its own, which have nothing to do with those of the same index in another."""

    parallel = False


def mixture(task: Task | None = None, **changes) -> Drawn:
    values = {
        "language": "sw",
        "tl_ratio": 0.5,
        "composition": "substitution",
        "train_size": 40,
        "validation_size": 9,
        "test_size": 12,
        "seed": 1,
        "difficulty": "normal",
        "data_dir": None,
    }
    return draw_all(task or Parallel(), **(values | changes))


def keys(items, language: str | None = None) -> set[tuple[str, int]]:
    return {(i.language, i.index) for i in items if language in (None, i.language)}


def indexes(items, language: str | None = None) -> set[int]:
    return {index for _, index in keys(items, language)}


each_task = pytest.mark.parametrize("task", [Parallel(), Separate()], ids=["parallel", "separate"])


@each_task
@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_are_exact(task, ratio):
    drawn = mixture(task, tl_ratio=ratio, train_size=100)
    assert Counter(i.language for i in drawn.train) == Counter(sw=round(100 * ratio), en=round(100 * (1 - ratio)))
    assert len(keys(drawn.train)) == 100
    assert {role: len(items) for role, items in drawn.validation.items()} == {"en": 9, "tl": 9}
    assert {role: len(items) for role, items in drawn.test.items()} == {"en": 12, "tl": 12}
    assert {i.language for i in (*drawn.validation["en"], *drawn.test["en"])} == {"en"}
    assert {i.language for i in (*drawn.validation["tl"], *drawn.test["tl"])} == {"sw"}


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_index_is_in_one_language_only(ratio):
    drawn = mixture(tl_ratio=ratio, train_size=POOL["train"])
    assert len(indexes(drawn.train)) == len(drawn.train)


@each_task
@pytest.mark.parametrize("ratio", RATIOS)
def test_addition_keeps_the_english_items_and_puts_target_items_on_top(task, ratio):
    drawn = mixture(task, tl_ratio=ratio, train_size=100, composition="addition")
    assert Counter(i.language for i in drawn.train) == Counter(en=100, sw=round(100 * ratio))
    english = mixture(task, tl_ratio=0.0, train_size=100)
    assert keys(drawn.train, "en") == keys(english.train)
    assert keys(mixture(task, tl_ratio=ratio / 2, train_size=100, composition="addition").train) <= keys(drawn.train)
    if task.parallel:
        assert len(indexes(drawn.train)) == len(drawn.train)
    assert trained_count(ratio, 100, "addition") == len(drawn.train)


@each_task
def test_pooled_deals_the_target_items_out_to_the_study_languages(task):
    drawn = mixture(task, language="pooled", tl_ratio=0.5, train_size=60)
    assert Counter(i.language for i in drawn.train) == Counter(en=30, sw=15, hi=15)
    assert Counter(i.language for i in drawn.test["tl"]) == Counter(sw=6, hi=6)
    assert Counter(i.language for i in drawn.validation["tl"]) == Counter(sw=5, hi=4)
    assert {i.language for i in drawn.test["en"]} == {"en"}
    assert keys(mixture(task, language="pooled", tl_ratio=0.25, train_size=60).train, "hi") <= keys(drawn.train, "hi")
    if task.parallel:
        assert len(indexes(drawn.train)) == 60
        assert [i.id for i in drawn.test["tl"]] == [i.id for i in drawn.test["en"]]


def test_languages_of_a_task_that_is_not_parallel_are_drawn_apart():
    drawn = mixture(Separate(), train_size=200)
    assert indexes(drawn.train, "en") & indexes(drawn.train, "sw")
    assert [i.index for i in drawn.train[:100]] != [i.index for i in drawn.train[100:]]


@each_task
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_the_target_items_are_nested_over_ratios(task, seed):
    sets = [keys(mixture(task, tl_ratio=ratio, seed=seed).train, "sw") for ratio in RATIOS]
    assert all(small <= great for small, great in pairwise(sets))


@each_task
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_the_english_items_are_nested_the_other_way(task, seed):
    sets = [keys(mixture(task, tl_ratio=ratio, seed=seed).train, "en") for ratio in RATIOS]
    assert all(great >= small for great, small in pairwise(sets))


def test_a_parallel_task_trains_on_the_same_content_at_every_ratio():
    assert len({frozenset(indexes(mixture(tl_ratio=ratio).train)) for ratio in RATIOS}) == 1


@each_task
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_a_smaller_set_is_contained_in_a_greater_one(task, ratio):
    drawn = [mixture(task, tl_ratio=ratio, train_size=size).train for size in (2, 10, 40, 200)]
    for small, great in pairwise(drawn):
        assert indexes(small) <= indexes(great)
        assert keys(small, "sw") <= keys(great, "sw")


def test_every_language_gets_the_translations_of_the_same_items():
    assert [i.index for i in mixture(language="sw").train] == [i.index for i in mixture(language="hi").train]


@each_task
def test_a_seed_gives_the_same_items_in_the_same_order(task):
    assert mixture(task) == mixture(task)


@each_task
def test_seeds_draw_different_training_items(task):
    assert len({frozenset(keys(mixture(task, seed=seed).train)) for seed in range(5)}) == 5


@each_task
def test_validation_and_test_depend_on_no_choice_of_the_run(task):
    one = mixture(task)
    for change in ({"seed": 2}, {"tl_ratio": 0.0}, {"train_size": 7}):
        two = mixture(task, **change)
        assert (two.validation, two.test) == (one.validation, one.test)


@each_task
def test_smaller_validation_and_test_sets_are_contained_in_greater_ones(task):
    small, great = mixture(task, validation_size=4, test_size=5), mixture(task, validation_size=20, test_size=36)
    for role in ("en", "tl"):
        assert great.validation[role][:4] == small.validation[role]
        assert great.test[role][:5] == small.test[role]


def test_a_parallel_task_is_scored_on_the_same_content_in_both_languages():
    drawn = mixture()
    assert [i.id for i in drawn.test["en"]] == [i.id for i in drawn.test["tl"]]
    assert [i.id for i in drawn.validation["en"]] == [i.id for i in drawn.validation["tl"]]


@each_task
@pytest.mark.parametrize(
    ("option", "available", "more"),
    [
        ("train_size", 240, {"tl_ratio": 0.0}),
        ("train_size", 240, {"tl_ratio": 1.0}),
        ("validation_size", 30, {}),
        ("test_size", 36, {}),
    ],
)
def test_a_size_beyond_the_data_says_how_much_there_is(task, option, available, more):
    mixture(task, **more, **{option: available})
    with pytest.raises(OptionError, match=rf"^{option}={available + 1}: .*\b{available}\b"):
        mixture(task, **more, **{option: available + 1})


@functools.cache
def packaged(ratio: float, language: str = "sw") -> Drawn:
    return mixture(get_task("atlas-nli"), tl_ratio=ratio, train_size=60, language=language)


def test_no_translation_of_a_scored_item_is_trained_on():
    drawn = packaged(0.5)
    scored = {i.id for items in (*drawn.validation.values(), *drawn.test.values()) for i in items}
    assert not scored & {i.id for i in drawn.train}
    assert Counter(i.language for i in drawn.train) == {"en": 30, "sw": 30}
    assert Counter(i.label for i in drawn.train) == dict.fromkeys(LABELS, 20)


def test_digests_tell_texts_languages_and_order_apart():
    task, items = get_task("atlas-nli"), packaged(0.5).train
    known = texts_digest(task, items)
    assert known == texts_digest(task, list(items))
    assert known != texts_digest(task, items[::-1])
    assert known != texts_digest(task, items[:-1])
    assert known != texts_digest(task, packaged(0.5, "hi").train)
