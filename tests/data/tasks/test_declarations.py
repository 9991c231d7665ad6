"""Errors of declarations name the line and the nearest name; prompts that cannot be rendered are found in advance."""

from __future__ import annotations

import pytest
from declaring import REVIEWS, declared, write_all

from whichlora.data.tasks import task_class
from whichlora.errors import OptionError


def problem(folder, **changes):
    with pytest.raises(OptionError) as caught:
        declared(folder, **changes)
    assert "\n" not in str(caught.value)
    return caught.value.allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "dee"}, "line 6: source has dee; allowed are de, tr (did you mean 'de'?)"),
        ({"pooled": ["tr", "trr"]}, "pooled has trr; allowed are de, tr (did you mean 'tr'?)"),
        ({"metrics": ["accuracy", "macro_fl"]}, "metrics has macro_fl; allowed for choice are f1, accuracy, macro_f1"),
        ({"metrics": ["chrf"]}, "metrics has chrf; allowed for choice are f1, accuracy, macro_f1"),
        ({"prompt": {"de": "{{ text }}", "trr": "{{ text }}"}}, "prompt has trr; allowed are de, tr"),
        ({"labels": {"1": {"de": "a", "trr": "b"}, "2": "c"}}, "labels has trr; allowed are de, tr"),
        ({"labels": {"1": {"de": "a"}, "2": "c"}}, "labels 1 lacks tr, which languages has"),
        ({"fields": {"text": "review", "anser": "stars"}}, "it has text, anser (did you mean 'anser'?)"),
        ({"lables": [1, 2]}, "has lables; allowed are task, kind, "),
        ({"data": {"trian": "t.csv", "test": "t.csv"}}, "data has trian; allowed are layout, "),
        ({"held_out": 1.5}, "held_out must be a share between 0 and 1"),
        ({"fields": {"text": "{long}", "answer": "stars"}}, "fields: {long} has {long}; allowed are {lang}"),
    ],
)
def test_an_error_names_the_line_of_the_value(tmp_path, changes, message):
    told = problem(tmp_path, **changes)
    key = next(iter(changes))
    lines = (tmp_path / "task.yaml").read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
    number = int(told.removeprefix("line ").partition(":")[0])
    assert first <= number < first + 6
    assert message in told


@pytest.mark.parametrize(("metric", "name"), [("micro_f1", "f1"), ("macro_f1", "macro_f1"), ("f1", "f1")])
def test_metrics_may_have_their_other_names(tmp_path, metric, name):
    assert declared(tmp_path, metrics=[metric]).headline == name


@pytest.mark.parametrize("labels", [[1, 2], {"1": 1, "2": 2}, {"1": {"de": 1, "tr": 1}, "2": 2}])
def test_labels_may_be_numbers(tmp_path, labels):
    write_all(tmp_path)
    task = declared(tmp_path, labels=labels)()
    item = task.load("de", "train")[0]
    assert task.labels == ("1", "2")
    assert task.label_words(item) == ("1", "2")
    assert task.answer(item) == " 1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ txt }}", "uses txt; allowed are text, labels, language (did you mean 'text'?)"),
        ("{{ text.__class__ }}", "cannot be rendered: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ text|attr('__class__') }}", "cannot be rendered: access to attribute '__class__'"),
        ("{{ cycler.__init__.__globals__ }}{{ text }}", "cannot be rendered: access to attribute '__init__'"),
        ("{% include 'other' %}{{ text }}", "may not include, import or extend another template"),
        ("{% import 'os' as os %}{{ text }}", "may not include, import or extend another template"),
        ("{% for i in range(10000000) %}a{% endfor %}{{ text }}", "cannot be rendered: Range too big"),
        ("{{ 9 ** 9 ** 9 }}{{ text }}", "cannot be rendered: the operator ** is not allowed"),
        ("{{ 'a' * 999999999 }}{{ text }}", "cannot be rendered: the product is too large"),
        ("{{ ['a'] * 999999999 }}{{ text }}", "cannot be rendered: the product is too large"),
        ("{{ '%999999999d' % 1 }}{{ text }}", "cannot be rendered: the operator % is not allowed"),
        ("{{ text|center(999999999) }}", "is not a Jinja template: No filter named 'center'"),
        ("{{ [text, '']|random }}", "is not a Jinja template: No filter named 'random'"),
        ("{{ lipsum() }}{{ text }}", "uses lipsum"),
        ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(text) }}", "cannot be rendered: maximum recursion depth"),
        ("{{ text", "is not a Jinja template: unexpected end of template"),
    ],
)
def test_a_template_cannot_leave_the_sandbox(tmp_path, template, message):
    told = problem(tmp_path, prompt=template)
    assert f"prompt {message}" in told
    assert told.startswith("line ")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ text[99999] }}", "the prompt cannot be rendered: str object has no element 99999"),
        ("{{ text / 2 }}", "the prompt cannot be rendered: unsupported operand"),
        ("{% if text == '' %}{{ text }}{% endif %}", "the prompt is empty"),
    ],
)
def test_a_row_for_which_the_prompt_fails_is_listed(tmp_path, template, message):
    write_all(tmp_path)
    with pytest.raises(OptionError, match="6 of 6 rows cannot be used") as caught:
        declared(tmp_path, prompt=template)().load("tr", "train")
    assert f"train-tr.csv line 2: {message}" in str(caught.value)


def test_arithmetic_and_conditions_work_in_the_sandbox(tmp_path):
    write_all(tmp_path)
    template = (
        "{% for label in labels %}{{ loop.index * 2 }} {{ label }} {% endfor %}{{ '-' * 3 }} {{ text|length % 2 }}"
    )
    task = declared(tmp_path, REVIEWS, prompt=template)()
    assert task.prompt(task.load("tr", "test")[0]).startswith("2 bad 4 good --- ")


def test_a_missing_file_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"^task=absent\.yaml: cannot be read: there is no such file$"):
        task_class("absent.yaml")
