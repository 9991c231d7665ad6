"""The items of declared tasks: messy labels, ids, answers and texts, and which rows cannot be used."""

from __future__ import annotations

import json
import unicodedata
import warnings

import pytest
from declaring import QUESTIONS, TEXTS, declared, reviews, squad, write

from whichlora.errors import OptionError

ALONE = {"languages": ["de"], "source": None, "data": {"test": "test.jsonl"}}


def items(folder, rows, base=None, **changes):
    """Return the items of a task in German alone, of rows in a JSONL file."""
    write(folder / "test.jsonl", rows)
    task = declared(folder, **({"base": base} if base else {}), **(ALONE | changes))
    return task().load("de", "test")


def problem(folder, rows, base=None, **changes) -> str:
    """Return why rows cannot be used."""
    with pytest.raises(OptionError) as caught:
        items(folder, rows, base, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        (["1", " 2 "], ["1", "2"]),
        (["1.0", "2.0"], ["1", "2"]),
        ([False, True], ["0", "1"]),
        ([False, True], ["false", "true"]),
        (["False", "TRUE"], ["false", "true"]),
        (["GOOD", "Bad"], ["good", "bad"]),
        (["good\u200f", "\ufeffbad\t"], ["good", "bad"]),
        (["für", "gegen"], [unicodedata.normalize("NFD", "für"), "gegen"]),
        ([unicodedata.normalize("NFD", "für"), "gegen"], ["für", "gegen"]),
        ([-1, 1], ["-1", "1"]),
        ([0.5, 1.5], ["0.5", "1.5"]),
    ],
)
def test_labels_of_any_type_and_case_are_found(tmp_path, values, labels):
    rows = [{"id": n, "review": "x", "stars": value} for n, value in enumerate(values)]
    found = items(tmp_path, rows, labels=dict(zip(labels, ("one", "two"), strict=True)))
    assert [item.answers for item in found] == [(label,) for label in labels]


def test_values_with_the_same_word_are_one_label(tmp_path):
    rows = [{"id": n, "review": "x", "stars": n} for n in range(4)]
    found = items(tmp_path, rows, labels={"0": "bad", "1": "bad", "2": "good", "3": "good"})
    assert [item.answers for item in found] == [("0",), ("0",), ("2",), ("2",)]


def test_case_decides_where_labels_differ_in_it_alone(tmp_path):
    rows = [{"id": n, "review": "x", "stars": value} for n, value in enumerate(["US", "us"])]
    labels = {"US": "a", "us": "b", "other": "c"}
    assert [item.answers for item in items(tmp_path, rows, labels=labels)] == [("US",), ("us",)]
    assert "label 'Us' is not declared" in problem(
        tmp_path, [{"id": 1, "review": "x", "stars": "Us"}], labels=labels, task="t"
    )


def test_ids_are_text_and_a_missing_one_is_the_position(tmp_path):
    rows = [{"review": "x", "stars": 1} | extra for extra in ({"id": 7}, {}, {"id": "a"}, {"id": None}, {"id": 1.0})]
    assert [item.id for item in items(tmp_path, rows)] == ["7", "#1", "a", "#3", "1"]
    changes = {"fields": {"text": "review", "answer": "stars"}, "task": "without"}
    assert [item.id for item in items(tmp_path, rows, **changes)] == ["0", "1", "2", "3", "4"]


def test_a_left_out_row_does_not_change_the_ids_of_others(tmp_path):
    rows = [{"review": "x" if n != 1 else " ", "stars": 1} for n in range(4)]
    changes = {"fields": {"text": "review", "answer": "stars"}, "on_bad": "skip"}
    with pytest.warns(UserWarning, match="1 of 4 rows in test.jsonl are left out: test.jsonl line 2: text"):
        found = items(tmp_path, rows, **changes)
    assert [(item.index, item.id) for item in found] == [(0, "0"), (1, "2"), (2, "3")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"review": ""}, "text is empty"),
        ({"review": " \u200f\u200b\n"}, "text is empty"),
        ({"review": None}, "text is empty"),
        ({"review": ["a"]}, "text is a list, not a text"),
        ({"review": {"a": 1}}, "text is a dict, not a text"),
        ({"stars": None}, "answer is missing"),
        ({"stars": ""}, "answer is empty"),
        ({"stars": [1]}, "answer is missing"),
        ({"stars": 3}, "label '3' is not declared"),
        ({"stars": float("nan")}, "answer is missing"),
        ({"stars": 10**40}, f"label '{10**40}' is not declared"),
        ({"id": "good"}, "id good occurs twice"),
    ],
)
def test_what_cannot_be_used_is_counted_and_located(tmp_path, row, message):
    good = {"id": "good", "review": "x", "stars": 1}
    told = problem(tmp_path, [good, {"id": "b", "review": "y", "stars": 2} | row])
    assert f"1 of 2 rows cannot be used: test.jsonl line 2: {message}" in told
    assert told.endswith("`on_bad: skip` leaves them out")


def test_a_field_that_only_some_rows_lack_is_said_for_those(tmp_path):
    rows = [{"id": 1, "review": "x", "stars": 1}, {"id": 2, "reveiw": "x", "stars": 1}]
    assert "line 2: has no 'review'; it has id, reveiw, stars (did you mean 'reveiw'?)" in problem(tmp_path, rows)


def test_ten_of_many_are_listed(tmp_path):
    told = problem(tmp_path, [{"id": n, "review": "", "stars": 1} for n in range(25)])
    assert "25 of 25 rows cannot be used" in told
    assert told.count("text is empty") == 10


def test_nothing_left_is_an_error_also_where_rows_may_be_left_out(tmp_path):
    with pytest.warns(UserWarning, match="1 of 1 rows in test.jsonl are left out"):
        assert "test.jsonl has no items in de that can be used" in problem(
            tmp_path, [{"id": 1, "review": "", "stars": 1}], on_bad="skip"
        )


def test_texts_are_kept_character_by_character(tmp_path):
    texts = ["e\u0301 é", "क्\u200dष", "\u200fابجد\u200e", "a\r\nb", " x ", "\u2028", "👩\u200d👩\u200d👧", 'a "b"', "7"]
    rows = [{"id": n, "review": f"{text}.", "stars": 1} for n, text in enumerate(texts)] + [
        {"id": "n", "review": 7.0, "stars": 2}
    ]
    assert [dict(item.fields)["text"] for item in items(tmp_path, rows)] == [*(f"{text}." for text in texts), "7"]


def test_a_text_may_be_empty_where_the_prompt_tests_for_it(tmp_path):
    fields = {"text": "review", "title": "title", "answer": "stars"}
    prompt = "{% if title %}{{ title }}\n{% endif %}{{ text }}{{ ' (new)' if new else '' }}:"
    rows = [{"review": "x", "title": title, "stars": 1} for title in ("", None, "t")] + [{"review": "y", "stars": 1}]
    found = items(tmp_path, rows, fields=fields | {"new": "new"}, prompt=prompt)
    assert [dict(item.fields)["title"] for item in found] == ["", "", "t", ""]


# Questions


def span(folder, context, answers, **row):
    write(folder / "test.jsonl", [{"id": 1, "context": context, "question": "Who?", "answers": answers} | row])
    return declared(folder, QUESTIONS, data={"test": "test.jsonl"})().load("de", "test")[0]


@pytest.mark.parametrize(
    ("context", "answers", "found", "start"),
    [
        ("Ali met Ali.", [{"text": "Ali", "answer_start": 8}], ("Ali",), 8),
        ("Ali met Ali.", {"text": ["Ali", "Ali met"], "answer_start": [8, 0]}, ("Ali", "Ali met"), 8),
        ("Ali met Ali.", {"text": ["Ali"]}, ("Ali",), 0),
        ("Ali met Ali.", ["met"], ("met",), 4),
        ("Ali met Ali.", "met", ("met",), 4),
        ("Ali met Ali.", '["met", "Ali"]', ("met", "Ali"), 4),
        ("Ali met Ali.", [{"text": " met ", "answer_start": 3}], ("met",), 4),
        ("Ali met Ali.", [{"text": "met", "answer_start": None}], ("met",), 4),
        ("Ali met Ali.", [{"text": "Ali", "answer_start": 10**30}], ("Ali",), 8),
        ("cafe\u0301 noir", [{"text": "café", "answer_start": 0}], ("cafe\u0301",), 0),
        ("un café", [{"text": "cafe\u0301", "answer_start": 3}], ("café",), 3),
        ("a\r\nb Ali", [{"text": "Ali", "answer_start": 4}], ("Ali",), 5),
    ],
)
def test_answers_of_every_form_are_found_in_the_context(tmp_path, context, answers, found, start):
    item = span(tmp_path, context, answers)
    assert (item.answers, item.answer_start) == (found, start)
    assert item.context == context


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", None])
def test_offsets_may_be_counted_in_bytes_or_utf_16_units(tmp_path, encoding):
    """The answer occurs twice, and each way to count leads to a different one if read as characters."""
    context = "x Ali " + "👍é" * 3 + " Ali ist hier, " + "é" * 4 + " nicht Ali dort."
    where = context.index("Ali", 10)
    unit = 1 if encoding != "utf-16-le" else 2
    start = where if encoding is None else len(context[:where].encode(encoding)) // unit
    question = {"id": "q", "question": "Who?", "answers": [{"text": "Ali", "answer_start": start}]}
    (tmp_path / "test.json").write_text(json.dumps(squad(question, context=context)))
    task = declared(tmp_path, QUESTIONS)
    assert task().load("de", "test")[0].answer_start == where
    notes = {"utf-8": "bytes", "utf-16-le": "UTF-16 units"}
    expected = (f"answer offsets are counted in {notes[encoding]}",) if encoding else ()
    assert task.reader.describe(None)[0].notes == expected


def test_a_long_context_is_read(tmp_path):
    context = "wort " * 4000 + "Ali"
    assert span(tmp_path, context, [{"text": "Ali", "answer_start": 20_000}]).answer_start == 20_000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": []}, "has no answer"),
        ({"answers": {"text": [], "answer_start": []}}, "has no answer"),
        ({"answers": [], "is_impossible": True}, "has no answer (is_impossible)"),
        ({"answers": [{"text": " ", "answer_start": 0}]}, "has no answer"),
        ({"answers": [{"text": "Juma"}]}, "answer 'Juma' is not in the context"),
        ({"answers": [{"start": 0}]}, "answers must be texts with their start offsets"),
        ({"answers": 3}, "answers must be texts with their start offsets"),
        ({"context": " "}, "context is empty"),
        ({"question": ""}, "question is empty"),
    ],
)
def test_a_question_without_an_answer_in_its_context_cannot_be_used(tmp_path, row, message):
    rows = [{"id": 1, "context": "Ali left.", "question": "Who?", "answers": ["Ali"]} | row]
    told = problem(tmp_path, rows, QUESTIONS)
    assert f"1 of 1 rows cannot be used: test.jsonl line 1: {message}" in told


# Texts


def test_alpaca_records_may_have_no_input(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3\n\nDone. "},
        {"instruction": "Say.", "input": "", "output": "[1, 2]"},
        {"instruction": "Go.", "output": 7},
    ]
    write(tmp_path / "test.json", rows)
    task = declared(tmp_path, TEXTS)()
    found = task.load("de", "test")
    assert [item.answers for item in found] == [("3\n\nDone.",), ("[1, 2]",), ("7",)]
    assert [task.prompt(item) for item in found] == ["Add.\n1 2\nAnswer:", "Say.\nAnswer:", "Go.\nAnswer:"]


def test_a_text_may_have_several_answers(tmp_path):
    rows = [{"instruction": "Say.", "input": "", "output": ["a", "b", "a", ""]}]
    assert items(tmp_path, rows, TEXTS)[0].answers == ("a", "b")


CHAT = {"fields": {"messages": "messages"}, "prompt": None}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def test_the_last_turn_of_the_assistant_is_the_answer(tmp_path):
    pairs = [
        ("system", "Be brief."),
        ("user", "Hi\nthere"),
        ("assistant", "Hello."),
        ("user", "Bye"),
        ("assistant", "Bye.\n"),
    ]
    others = [
        {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": content} for role, content in pairs
    ]
    parts = [{"role": role.upper(), "content": [{"type": "text", "text": content}]} for role, content in pairs]
    rows = [{"messages": value} for value in (turns(*pairs), others, parts, json.dumps(turns(*pairs)))]
    for item in items(tmp_path, rows, TEXTS, **CHAT):
        assert json.loads(dict(item.fields)["messages"]) == turns(*pairs[:-1])
        assert item.answers == ("Bye.",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "messages is not a list of turns"),
        ("Hi", "messages is not a list of turns"),
        (turns(("user", "Hi")), "messages has no answer of the assistant to a turn before it"),
        (turns(("assistant", "Hi")), "messages has no answer of the assistant to a turn before it"),
        (turns(("user", "Hi"), ("bot", "Hi")), "messages: turn 2 has the role 'bot'; allowed are system, user"),
        (turns(("user", " "), ("assistant", "Hi")), "messages: turn 1 has no text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages: turn 1 has no text"),
        (["Hi"], "messages: turn 1 is not an object with role and content"),
    ],
)
def test_a_conversation_without_an_answer_cannot_be_used(tmp_path, value, message):
    assert f"line 1: {message}" in problem(tmp_path, [{"messages": value}], TEXTS, **CHAT)


# Parallel items


def parallel(folder, german, turkish, **changes):
    for language, rows in (("de", german), ("tr", turkish)):
        write(folder / f"test-{language}.jsonl", rows)
    task = declared(folder, data={"test": "test-{lang}.jsonl"}, parallel=True, **changes)
    return {language: task().load(language, "test") for language in ("tr", "de")}


def pairs(found) -> list[tuple[str, str]]:
    for language in found:
        assert [item.index for item in found[language]] == list(range(len(found[language])))
    return list(zip(*([item.id for item in found[language]] for language in ("de", "tr")), strict=True))


def test_parallel_items_are_aligned_by_id(tmp_path):
    german, turkish = reviews("de", "test"), reviews("tr", "test")
    found = parallel(tmp_path, german, turkish[::-1])
    assert pairs(found) == [(f"test-{n}", f"test-{n}") for n in range(6)]


@pytest.mark.parametrize("with_ids", [True, False])
def test_an_item_that_is_bad_in_one_language_is_left_out_in_all(tmp_path, with_ids):
    german, turkish = reviews("de", "test"), reviews("tr", "test")
    german[1]["review"], turkish[4]["stars"] = "", 9
    fields = {"text": "review", "answer": "stars"} | ({"id": "id"} if with_ids else {})
    with pytest.warns(UserWarning, match="are left out") as warned:
        found = parallel(tmp_path, german, turkish, on_bad="skip", fields=fields)
    ids = [f"test-{n}" if with_ids else str(n) for n in (0, 2, 3, 5)]
    assert pairs(found) == [(i, i) for i in ids]
    assert [dict(item.fields)["text"][:2] for item in found["tr"]] == ["tr"] * 4
    messages = " ".join(str(entry.message) for entry in warned)
    assert "1 of 6 rows in test-tr.jsonl are left out: test-tr.jsonl line 5: label '9'" in messages
    assert messages.count("1 rows are left out, because they cannot be used in another language") == 2


def test_an_item_that_a_language_lacks_is_left_out_in_all(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = parallel(tmp_path, reviews("de", "test"), reviews("tr", "test")[1:], on_bad="skip")
    assert pairs(found) == [(f"test-{n}", f"test-{n}") for n in range(1, 6)]


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (lambda rows: rows[1:], {}, "test-tr.jsonl: has no item test-0, which de has"),
        (lambda rows: [*rows, rows[0] | {"id": "x"}], {}, "test-tr.jsonl: item x is not in de"),
        (lambda rows: [rows[0] | {"stars": 2}, *rows[1:]], {}, "test-tr.jsonl: item test-0 is '2', but '1' in de"),
        (
            lambda rows: rows[1:],
            {"fields": {"text": "review", "answer": "stars"}, "on_bad": "skip"},
            "test-tr.jsonl has 5 items in tr, but 6 in de; items without ids must be the same in every language",
        ),
    ],
)
def test_languages_with_different_items_are_an_error(tmp_path, change, fields, message):
    with pytest.raises(OptionError) as caught:
        parallel(tmp_path, reviews("de", "test"), change(reviews("tr", "test")), **fields)
    assert message in str(caught.value)


def test_a_malformed_row_makes_positions_uncertain(tmp_path):
    for language in ("de", "tr"):
        rows = [f'"{language}, {n}",1' for n in range(4)]
        rows[2] = '"not closed,1' if language == "tr" else rows[2]
        (tmp_path / f"test-{language}.csv").write_text("\n".join(["review,stars", *rows]))
    changes = {"parallel": True, "on_bad": "skip", "fields": {"text": "review", "answer": "stars"}}
    task = declared(tmp_path, data={"test": "test-{lang}.csv"}, **changes)
    with pytest.raises(OptionError, match=r"test-tr.csv line 4: has a quotation mark .*, so that items without ids"):
        task().load("tr", "test")
