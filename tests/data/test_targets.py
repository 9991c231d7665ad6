"""The target languages that the option `language` names, and the items of a mixture of several."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import folders
import pytest

from whichlora.data import mixture
from whichlora.data.language_names import join_names, language_name
from whichlora.data.targets import alternation, canonical_language, target_shares
from whichlora.data.tasks import Task, get_task
from whichlora.errors import OptionError


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return get_task(folders.reviews_task(tmp_path_factory.mktemp("reviews"), "de", "az", "tr", source="de"))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tr", "tr"),
        ("tr:3", "tr"),
        ("tr,az", "az,tr"),
        ("[tr, az]", "az,tr"),
        ("az:2,tr:2", "az,tr"),
        ("tr:4,az:2", "az:1,tr:2"),
        ("pooled", "pooled"),
    ],
)
def test_equal_mixtures_have_one_spelling(task: Task, text: str, canonical: str) -> None:
    assert canonical_language(task, text) == canonical
    assert target_shares(task, canonical) == target_shares(task, canonical_language(task, canonical))


@pytest.mark.parametrize("text", ["", ",", "tr,", "tr,tr", "tr:0,az", "tr:x,az", "tr:,az", "tr:-1,az", "tr:101,az"])
def test_malformed_targets_are_refused(task: Task, text: str) -> None:
    with pytest.raises(OptionError, match=r"^language=.*: must be different codes, separated by commas"):
        canonical_language(task, text)


@pytest.mark.parametrize("text", ["de", "fr", "tr,fr", "tr,de", "tr,pooled"])
def test_targets_must_be_languages_of_the_task_but_not_its_source(task: Task, text: str) -> None:
    with pytest.raises(OptionError, match=r"^language=.*allowed are az, tr"):
        canonical_language(task, text)


def test_turns_are_spread_evenly() -> None:
    assert alternation([1, 1, 1]) == (0, 1, 2)
    assert alternation([2, 1]) == (0, 1, 0)
    assert alternation([4, 2]) == (0, 1, 0)
    assert Counter(alternation([5, 3, 1])) == {0: 5, 1: 3, 2: 1}


def drawn(task: Task, language: str, *, ratio: float = 0.6, size: int = 60) -> mixture.Mixture:
    return mixture.draw(
        task,
        language=language,
        tl_ratio=ratio,
        train_size=size,
        validation_size=4,
        seed=1,
        difficulty="normal",
        data_dir=None,
    )


def test_training_items_have_the_given_shares_and_are_nested(task: Task) -> None:
    items = drawn(task, "az:1,tr:2").train
    assert Counter(item.language for item in items) == {"tr": 24, "az": 12, "de": 24}
    assert len({(item.language, item.id) for item in items}) == 60
    fewer = drawn(task, "az:1,tr:2", ratio=0.3).train
    assert {item for item in fewer if item.language != "de"} < set(items)
    # The share of one language does not change which of its items are used.
    alone = {item for item in drawn(task, "tr").train if item.language == "tr"}
    assert {item for item in items if item.language == "tr"} < alone


def test_equal_shares_are_those_of_pooled(task: Task) -> None:
    assert drawn(task, "az,tr") == drawn(task, "pooled")
    assert drawn(task, "az:1,tr:2").validation == drawn(task, "pooled").validation


def test_in_a_parallel_task_an_item_is_in_one_language_only(tmp_path: Path) -> None:
    parallel = get_task(folders.reviews_task(tmp_path, "de", "az", "tr", source="de", name="same", parallel=True))
    items = drawn(parallel, "az:1,tr:2").train
    assert Counter(item.language for item in items) == {"tr": 24, "az": 12, "de": 24}
    assert len({item.id for item in items}) == 60


def test_a_study_in_one_language_has_target_items_only(tmp_path: Path) -> None:
    alone = get_task(folders.reviews_task(tmp_path, "tr", name="alone"))
    found = drawn(alone, "tr", ratio=1)
    assert {item.language for item in found.train} == {"tr"}
    assert set(found.validation) == {"tl"}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("de", "German"),
        ("zh-Hans", "Simplified Chinese"),
        ("swh_Latn", "Swahili"),
        ("ary", "Moroccan Arabic"),
        ("qxx", "qxx"),  # unknown
        ("pooled", "pooled"),
        ("not a code", "not a code"),
    ],
)
def test_languages_have_their_names_of_cldr(code: str, name: str) -> None:
    assert language_name(code) == name


def test_names_are_joined() -> None:
    assert join_names(["tr"]) == "Turkish"
    assert join_names(["tr", "az", "qxx"]) == "Turkish, Azerbaijani and qxx"
