"""Declared tasks whose answers are texts of each item: templates, their checks, and what the digests depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from declaring import REVIEWS, declared, write

from whichlora.data.mixture import texts_digest
from whichlora.errors import OptionError

ENDINGS: dict[str, Any] = {
    "task": "endings",
    "kind": "choice",
    "languages": ["de", "tr"],
    "data": {"test": "test-{lang}.jsonl"},
    "fields": {"story": "story", "a": "ends.0", "b": "ends.1", "answer": "right"},
    "choices": {1: "{{ a }}", 2: "{{ b }}"},
    "prompt": "{{ story }}",
    "control_without": ["story"],
}
ROW = {"story": "Es war einmal.", "ends": ["Er ging.", "Sie kam."], "right": 2}


def items(folder, *rows, **changes):
    for code in ("de", "tr"):
        write(folder / f"test-{code}.jsonl", list(rows or [ROW]))
    task = declared(folder, ENDINGS, **changes)()
    return task, task.load("de", "test")


def test_the_choices_are_the_words_of_the_labels(tmp_path):
    task, (item,) = items(tmp_path)
    assert (task.labels, task.gold(item)) == (("1", "2"), ("2",))
    assert task.label_words(item) == ("Er ging.", "Sie kam.")
    assert task.answer(item) == " Sie kam."
    assert task.texts(item) == {"story": "Es war einmal.", "a": "Er ging.", "b": "Sie kam."}
    control = task.control(item)
    assert (task.prompt(item), task.prompt(control)) == ("Es war einmal.", "")
    assert task.label_words(control) == task.label_words(item)


def test_without_a_control_there_is_none(tmp_path):
    task, (item,) = items(tmp_path, control_without=None)
    assert task.control(item) is None


@pytest.mark.parametrize(
    ("language", "text", "continued"),
    [
        ("de", "Er ging.", "er ging."),
        ("tr", "Işık yandı.", "ışık yandı."),
        ("tr", "İçeri girdim.", "içeri girdim."),
        ("de", "Igel laufen.", "igel laufen."),
        ("de", "TV lief.", "TV lief."),
        ("de", "雨が降った。", "雨が降った。"),
        ("de", "Ä", "ä"),
        ("de", "«Ja»", "«Ja»"),
    ],
)
def test_a_choice_may_continue_the_sentence(tmp_path, language, text, continued):
    task, (item,) = items(tmp_path, ROW | {"ends": [text, "x"]}, choices={1: "{{ a | uncapitalize }}", 2: "{{ b }}"})
    assert task.label_words(replace(item, language=language))[0] == continued


@pytest.mark.parametrize(
    ("text", "continued"), [("I left.", "I left."), ("I'm ill.", "I'm ill."), ("It fell.", "it fell.")]
)
def test_the_english_pronoun_keeps_its_capital(tmp_path, text, continued):
    task, (item,) = items(tmp_path, ROW | {"ends": [text, "x"]}, choices={1: "{{ a | uncapitalize }}", 2: "{{ b }}"})
    assert task.label_words(replace(item, language="en"))[0] == continued


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": None}, "lacks labels or choices, of which a task of kind choice needs one"),
        ({"labels": [1, 2]}, "has labels and choices; allowed is one of them"),
        ({"choices": {1: "{{ a }}"}}, "choices must be at least two"),
        ({"choices": {1: "{{ a }}", 2: "{{ c }}"}}, "choices uses c; allowed are story, a, b, language"),
        ({"choices": {1: "{{ a }}", 2: "{{ labels[0] }}"}}, "choices uses labels; allowed are story, a, b, language"),
        ({"choices": {1: "{{ a }}", 2: "{{ b"}}, "choices is not a Jinja template"),
        ({"prompt": "{{ story"}, "prompt is not a Jinja template"),
        (
            {"control_without": ["storry"]},
            "control_without has storry; allowed are the fields of the prompt that are in ",
        ),
        ({"control_without": ["a"], "prompt": "{{ story }} {{ a }}"}, "in no choice: story"),
    ],
)
def test_errors_name_the_key(tmp_path, changes, message):
    with pytest.raises(OptionError, match=r"line \d+") as caught:
        declared(tmp_path, ENDINGS, **changes)
    assert message in str(caught.value)


def test_labels_alone_have_no_control(tmp_path):
    with pytest.raises(OptionError, match="has control_without, which needs choices"):
        declared(tmp_path, REVIEWS, control_without=["text"])


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (ROW | {"ends": ["Er ging.", " "]}, {}, "b is empty"),
        (ROW | {"ends": ["Er ging."]}, {}, "no column 'ends.1' for b"),
        (ROW | {"right": 3}, {}, "label '3' is not declared"),
        (ROW, {"choices": {1: "{{ a }}", 2: "{% if b == 'x' %}{{ b }}{% endif %}"}}, "a choice is empty"),
        (ROW, {"prompt": "{{ story[0] }}"}, "the prompt cannot be rendered"),
    ],
)
def test_a_row_without_its_choices_cannot_be_used(tmp_path, row, changes, message):
    with pytest.raises(OptionError) as caught:
        items(tmp_path, row, **changes)
    assert message in str(caught.value)


def test_what_is_scored_decides_the_digests(tmp_path):
    task, found = items(tmp_path)
    other, changed = items(tmp_path / "other", ROW | {"ends": ["Er lief.", "Sie kam."]})
    assert task.prompt(found[0]) == other.prompt(changed[0])
    assert texts_digest(task, found) != texts_digest(other, changed)
    without, _ = items(tmp_path / "without", control_without=None)
    assert without.prompt_version != task.prompt_version == other.prompt_version


def test_keys_that_other_tasks_lack_leave_their_digest_as_it_was(tmp_path):
    assert declared(tmp_path).prompt_version == "declared-1 a3f09c4c41462ff4"
