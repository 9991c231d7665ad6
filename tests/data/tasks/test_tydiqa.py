"""The splits of TyDi QA, in languages with and without a train file."""

from __future__ import annotations

import folders
import pytest
from drawing import draw_all

from whichlora.data.tasks import get_task
from whichlora.data.tasks.tydiqa import HELD_OUT
from whichlora.errors import OptionError

QA = get_task("tydiqa")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return folders.tydiqa_folder(tmp_path_factory.mktemp("tydiqa"))


def mixture(data: str, **changes):
    values = {"language": "sw", "tl_ratio": 0.5, "train_size": 40, "validation_size": 9, "test_size": None, "seed": 1}
    return draw_all(QA, difficulty="normal", data_dir=data, **(values | changes))


def test_the_sizes_of_the_paper():
    assert (QA.sizes.train, QA.sizes.validation, QA.sizes.test) == (3000, HELD_OUT, None) == (3000, 696, None)
    assert len(QA.languages) == 9


def test_validation_is_held_out_of_train_and_test_is_dev(data):
    for number, language in enumerate(QA.languages):
        train, validation, test = (QA.load(language, s, data_dir=data) for s in ("train", "validation", "test"))
        assert (len(train), len(validation)) == ((0, 0) if language in ("bn", "te") else (60, 30))
        assert len(test) == 4 + number
        assert {i.id for i in train}.isdisjoint(i.id for i in validation)


def test_questions_about_a_passage_are_not_divided(tmp_path):
    rows = folders.tydiqa_rows("sw", "train", 90)
    for number, row in enumerate(rows):
        row["context"] += f" {number // 4}" if number < 60 else ""
    rows = [
        row | {"context": rows[number // 2 * 2]["context"], "answers": ["Peter"]} for number, row in enumerate(rows)
    ]
    rows = [row | {"context": f"{row['context']} Peter"} for row in rows]
    folders.write(tmp_path / "sw.train.jsonl", rows)
    train, validation = (QA.load("sw", split, data_dir=str(tmp_path)) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (60, 30)
    assert {item.context for item in train}.isdisjoint(item.context for item in validation)


def test_the_test_set_is_all_there_is_in_each_language(data):
    drawn = mixture(data)
    assert {role: len(items) for role, items in drawn.test.items()} == {"en": 6, "tl": 11}
    assert {role: len(items) for role, items in mixture(data, test_size=5).test.items()} == {"en": 5, "tl": 5}
    assert mixture(data, test_size=5).test["tl"] == drawn.test["tl"][:5]
    with pytest.raises(OptionError, match=r"^test_size=11: tydiqa has 6 test items in en$"):
        mixture(data, test_size=11)


@pytest.mark.parametrize("language", ["bn", "te"])
def test_a_language_without_a_train_file_is_scored_but_not_trained(data, language):
    drawn = mixture(data, language=language, tl_ratio=0.0, select_on="en")
    assert {item.language for item in drawn.train} == {"en"}
    assert (len(drawn.validation["en"]), len(drawn.validation["tl"])) == (9, 0)
    assert {item.language for item in drawn.test["tl"]} == {language}
    message = rf"^tl_ratio=0.5: tydiqa has no {language} items to train on; allowed is 0$"
    with pytest.raises(OptionError, match=message):
        mixture(data, language=language)


@pytest.mark.parametrize("select_on", ["mean", "tl"])
def test_no_checkpoint_can_be_chosen_by_items_that_are_not_there(data, select_on):
    message = rf"^select_on={select_on}: tydiqa has no bn items to select a checkpoint on; allowed is en$"
    with pytest.raises(OptionError, match=message):
        mixture(data, language="bn", tl_ratio=0.0, select_on=select_on)


def test_an_item_keeps_all_its_accepted_answers(data):
    item = next(i for i in QA.load("te", "test", data_dir=data) if len(i.answers) > 1)
    short, longer = QA.gold(item)
    assert short in longer
    assert QA.metrics([longer], [QA.gold(item)])["exact_match"] == 1
    assert QA.metrics([short], [QA.gold(item)])["exact_match"] == 1
    assert QA.answer(item) == f" {short}"
