"""A declared task without sizes takes what every ratio can have."""

from __future__ import annotations

from pathlib import Path

import pytest
from reviews import declare_reviews, review_rows, reviews_folder, write_reviews

from whichlora.config.options import parse_options
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError


@pytest.fixture
def sizes(tiny_model: str):
    """Return a function from a task's file and further options to the resolved sizes."""

    def resolved(task: str, **options: str) -> tuple[int, int, int | None]:
        spec = resolve(parse_options({"task": task, "language": "tr", "model": tiny_model, **options})).spec
        return spec.train_size, spec.validation_size, spec.test_size

    return resolved


def test_sizes_do_not_depend_on_the_ratio(sizes, tmp_path: Path):
    task = reviews_folder(tmp_path, group=None)
    write_reviews(tmp_path / "train-tr.csv", review_rows("tr", "train", 60))
    expected = 54, 6, None  # a tenth of the smaller language is held out
    assert {sizes(task, tl_ratio=ratio) for ratio in ("0", "0.1", "0.5", "1")} == {expected}
    assert sizes(task, train_size="30", validation_size="4", test_size="20") == (30, 4, 20)


@pytest.mark.parametrize(("parallel", "expected"), [(False, 90), (True, 45)])
def test_added_target_items_fit_too(sizes, tmp_path: Path, parallel: bool, expected: int):
    task = reviews_folder(tmp_path, parallel=parallel, group=None, stratify=None)
    for split, n in (("train", 100), ("test", 50)):  # the same labels in both languages
        write_reviews(tmp_path / f"{split}-tr.csv", review_rows("de", split, n))
    added = {"composition": "addition"}
    assert {sizes(task, tl_ratio=ratio, **added)[0] for ratio in ("0", "0.1", "1")} == {expected}


def test_what_the_file_says_has_priority(sizes, tmp_path: Path):
    assert sizes(reviews_folder(tmp_path, sizes={"train": 40, "test": 30}, group=None)) == (40, 10, 30)


def test_a_target_without_training_items_counts_only_above_0(sizes, tmp_path: Path):
    task = reviews_folder(tmp_path, group=None)
    (tmp_path / "train-tr.csv").unlink()
    assert sizes(task, tl_ratio="0") == (90, 10, None)
    with pytest.raises(OptionError, match=r"^tl_ratio=0.5: reviews has no tr items to train on; allowed is 0$"):
        sizes(task, tl_ratio="0.5")


def test_no_training_items_at_all_are_named(sizes, tmp_path: Path):
    task = reviews_folder(tmp_path)
    declare_reviews(tmp_path, data={"test": "test-{lang}.csv"})
    with pytest.raises(OptionError, match=r"^task=reviews: has no train items in de or tr$"):
        sizes(task)


def test_large_sets_are_limited(sizes, tmp_path: Path):
    task = reviews_folder(tmp_path, train=5600, group=None)
    assert sizes(task)[:2] == (5000, 500)


def test_languages_that_are_trained_together_are_limited_by_the_smallest(sizes, tmp_path: Path):
    task = reviews_folder(tmp_path, group=None, languages=["de", "tr", "az"])
    write_reviews(tmp_path / "train-az.csv", review_rows("tr", "train", 40))
    write_reviews(tmp_path / "test-az.csv", review_rows("tr", "test", 12))
    assert sizes(task, language="pooled") == (36, 4, None)
