"""Repeated items are counted and left out, and what is held out shares no group with what is trained on."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import pytest
from reviews import declare_reviews, review_rows, reviews_folder, write_reviews

from whichlora.config.options import parse_options
from whichlora.config.resolve import resolve
from whichlora.data import mixture
from whichlora.data.tasks import get_task
from whichlora.data.tasks.base import SPLITS
from whichlora.data.tasks.duplicates import counted, normalized, repeats
from whichlora.data.tasks.items import FieldsItem, QaItem
from whichlora.errors import OptionError
from whichlora.scheduling.jobs import mark_worker


def review(index: int, text: str, label: str = "1") -> FieldsItem:
    return FieldsItem(index, str(index), "de", label, fields=(("text", text),), answers=(label,))


def test_texts_are_the_same_regardless_of_case_spaces_and_unicode_form():
    composed = "Großartig,  PRÄZISE\u00a0und\nschön"
    assert normalized(composed) == normalized(unicodedata.normalize("NFD", composed).upper())
    assert normalized("ja") != normalized("ja!")


def test_an_item_repeats_those_of_splits_that_are_scored_and_earlier_ones_of_its_own(tmp_path: Path):
    task = get_task(declare_reviews(tmp_path))
    items = {
        "train": [review(0, "a"), review(1, "b"), review(2, "B"), review(3, "c", "2"), review(4, "c")],
        "validation": [review(0, "c"), review(1, "d")],
        "test": [review(0, "a"), review(1, "A ")],
    }
    found = {(r.split, r.position, r.of, r.differs) for r in repeats(task, items)}
    assert found == {
        ("test", 1, "test", False),
        ("train", 0, "test", False),
        ("train", 2, "train", False),
        ("train", 3, "validation", True),
        ("train", 4, "validation", False),
    }
    assert counted(repeats(task, items)) == [
        "1 test item repeats another test item",
        "1 train item repeats a test item",
        "1 train item repeats another train item",
        "2 train items repeat validation items (1 with another answer)",
    ]


def test_questions_with_a_common_answer_do_not_differ():
    def question(index: int, *answers: str) -> QaItem:
        return QaItem(index, str(index), "en", "en", context="a b c", question="?", answers=answers, answer_start=0)

    items = [question(0, "a", "a b"), question(1, "A b"), question(2, "c")]
    (first, second) = repeats(get_task("tydiqa"), {"test": items})
    assert (first.differs, second.differs) == (False, True)


@pytest.fixture
def repeated(tmp_path: Path) -> Path:
    """A folder in which German repeats items within train, within test and across both."""
    reviews_folder(tmp_path)
    rows = {split: review_rows("de", split, n) for split, n in (("train", 100), ("test", 50))}
    texts = {split: [row["review"] for row in rows[split]] for split in rows}
    rows["train"][3] |= {"review": texts["train"][2].upper(), "stars": "5"}
    rows["train"][4] |= {"review": texts["test"][0]}
    rows["test"][7] |= {"review": f" {texts['test'][6]}"}
    for split in rows:
        write_reviews(tmp_path / f"{split}-de.csv", rows[split])
    return tmp_path


def test_a_run_is_warned_once_of_repeated_items(repeated: Path):
    task = get_task(declare_reviews(repeated, group=None))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            mixture.warn_of_repeats(task, language="tr", difficulty="normal", data_dir=None)
    (warning,) = caught
    assert str(warning.message) == (
        "reviews in de: 1 test item repeats another test item (1 with another answer); 1 train item repeats another "
        "train item (1 with another answer); 1 train item repeats a test item (1 with another answer)"
    )


def test_workers_do_not_repeat_the_warnings_of_the_command_that_started_them(
    repeated: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
):
    options = {"task": declare_reviews(repeated, group=None), "model": tiny_model, "language": "tr"}
    options |= {"train_size": "8", "validation_size": "4", "test_size": "4"}
    counts = []
    for variables in ({}, mark_worker(0)):
        mixture._warn_of_repeats.cache_clear()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resolve(parse_options(options))
        counts.append(sum("repeats" in str(warning.message) for warning in caught))
    assert counts == [1, 0]


def test_repeated_items_are_left_out_of_train_first(repeated: Path):
    task = get_task(declare_reviews(repeated, deduplicate=True, group=None))
    with pytest.warns(
        UserWarning, match=r"^reviews: left out in de, since `deduplicate` is true: 1 test item"
    ) as caught:
        items = {split: task.load("de", split) for split in SPLITS}
    assert len(caught) == 1
    assert [len(items[split]) for split in SPLITS] == [88, 10, 49]
    assert not list(repeats(task, items))
    ids = {item.id for split in ("train", "validation") for item in items[split]}
    assert {"train2"} == ids & {"train2", "train3", "train4"}
    for split in SPLITS:
        assert [item.index for item in items[split]] == list(range(len(items[split])))
    assert len(task.load("tr", "test")) == 50


def test_a_parallel_task_leaves_out_the_same_items_in_every_language(repeated: Path):
    for language in ("de", "tr"):  # parallel: the same labels in both
        for split in ("train", "test"):
            rows = review_rows("de", split, 50)
            if language == "tr":
                rows = [row | {"review": f"tr {row['review']}"} for row in rows]
            if language == "tr" and split == "train":
                rows[5]["review"], rows[6]["stars"] = rows[6]["review"], rows[5]["stars"]
            if language == "de" and split == "train":
                rows[6]["stars"] = rows[5]["stars"]
            write_reviews(repeated / f"{split}-{language}.csv", rows)
    task = get_task(declare_reviews(repeated, deduplicate=True, parallel=True))
    with pytest.warns(UserWarning, match="left out in tr"):
        loaded = {language: [task.load(language, split) for split in SPLITS] for language in ("de", "tr")}
    ids = [[[item.id for item in part] for part in loaded[language]] for language in ("de", "tr")]
    assert ids[0] == ids[1]
    assert sum(map(len, ids[0])) == 99
    assert "train6" not in {name for part in ids[0][:2] for name in part}


def test_without_a_declared_group_items_with_the_same_text_stay_together(tmp_path: Path):
    rows = [row | {"review": f"text {n // 4}"} for n, row in enumerate(review_rows("de", "train", 120))]
    reviews_folder(tmp_path, group=None)
    write_reviews(tmp_path / "train-de.csv", rows)
    task = get_task(str(tmp_path / "reviews.yaml"))
    train, held = ({item.fields for item in task.load("de", split)} for split in ("train", "validation"))
    texts = [{dict(fields)["text"] for fields in part} for part in (train, held)]
    assert texts[0].isdisjoint(texts[1])
    assert len(task.load("de", "validation")) == 12


def test_questions_about_a_context_stay_together(tmp_path: Path):
    for split in ("train", "test"):
        lines = "".join(
            f'{{"id": "{split}{n}", "c": "{split} text {n // 3}", "q": "{n}?", "a": ["text"]}}\n' for n in range(60)
        )
        (tmp_path / f"{split}.jsonl").write_text(lines)
    path = tmp_path / "questions.yaml"
    path.write_text(
        "task: questions\nkind: span\nlanguages: [de]\ndata: {train: train.jsonl, test: test.jsonl}\n"
        "fields: {id: id, context: c, question: q, answers: a}\nheld_out: 12\n"
    )
    task = get_task(str(path))
    train, held = (task.load("de", split) for split in ("train", "validation"))
    assert len(held) == 12
    assert {item.context for item in train}.isdisjoint(item.context for item in held)


def test_products_are_held_out_of_all_languages(tmp_path: Path):
    task = get_task(reviews_folder(tmp_path))
    held, trained = (
        {dict(item.fields)["product"] for code in ("de", "tr") for item in task.load(code, split)}
        for split in ("validation", "train")
    )
    assert held
    assert held.isdisjoint(trained)


def test_a_single_group_cannot_be_held_out(tmp_path: Path):
    reviews_folder(tmp_path)
    write_reviews(tmp_path / "train-de.csv", [row | {"product": "p"} for row in review_rows("de", "train", 20)])
    with pytest.raises(OptionError, match=r"^task=reviews: all items in de have one product"):
        get_task(str(tmp_path / "reviews.yaml")).load("de", "train")


def test_no_repetition_is_no_warning(tmp_path: Path):
    task = get_task(reviews_folder(tmp_path, deduplicate=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture.warn_of_repeats(task, language="tr", difficulty="normal", data_dir=None)


def test_a_declared_group_of_a_parallel_task_holds_out_what_xnli_does(tmp_path: Path):
    """The same rows, declared with the premise as the group, are divided as by the task xnli."""
    labels = ("entailment", "neutral", "contradiction")
    for language in ("en", "tr"):
        lines = [f"{language} premise {n // 3 + n % 2}\t{language} {n}\t{labels[n % 3]}\n" for n in range(240)]
        (tmp_path / f"dev-{language}.tsv").write_text("".join(lines))
        head = "premise\thypothesis\tlabel\n"
        for split in ("train", "test"):
            (tmp_path / f"{split}.{language}.tsv").write_text("".join([head, *lines]))
    path = tmp_path / "pairs.yaml"
    path.write_text(
        "task: pairs\nkind: choice\nlanguages: [en, tr]\nsource: en\nparallel: true\nheld_out: 500\ngroup: premise\n"
        'data: {train: "train.{lang}.tsv", test: "test.{lang}.tsv"}\n'
        "fields: {premise: premise, hypothesis: hypothesis, answer: label}\n"
        f'labels: [{", ".join(labels)}]\nprompt: "{{{{ premise }}}} {{{{ hypothesis }}}}"\n'
    )
    xnli, declared = get_task("xnli"), get_task(str(path))
    for language in ("en", "tr"):
        for split in ("train", "validation"):
            items = xnli.load(language, split, data_dir=str(tmp_path))
            expected = [(item.premise, item.hypothesis) for item in items]
            assert [tuple(declared.texts(item).values()) for item in declared.load(language, split)] == expected
        assert len(declared.load(language, "validation")) > 60
