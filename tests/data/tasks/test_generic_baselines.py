"""The baselines of any task find what they should, and nothing else, and cope with any data."""

from __future__ import annotations

import random
from pathlib import Path

import folders
import pytest
from reviews import declare_reviews, reviews_folder

from whichlora.data.tasks import get_task, task_class
from whichlora.data.tasks.generic_baselines import classified, copied, random_spans
from whichlora.data.tasks.items import FieldsItem, QaItem
from whichlora.testing.task_case import check_floors

Texts = list[dict[str, str]]


def share_right(answers: dict[str, list[str]], labels: list[str]) -> dict[str, float]:
    return {name: sum(map(str.__eq__, found, labels)) / len(labels) for name, found in answers.items()}


def pairs(n: int, seed: int) -> tuple[Texts, list[str]]:
    """Return texts whose second field gives the label away and whose first is noise."""
    rng = random.Random(seed)
    labels = [str(i % 3) for i in range(n)]
    signs = dict(zip("012", ("ja", "nein", "vielleicht"), strict=True))
    noise = ["".join(rng.choices("abcdefg ", k=30)) for _ in range(n)]
    return [
        {"one": text, "two": f"{text[:5]} {signs[label]}"} for text, label in zip(noise, labels, strict=True)
    ], labels


def test_a_classifier_finds_the_field_that_gives_the_label_away():
    (train, labels), (test, gold) = pairs(300, 1), pairs(150, 2)
    found = share_right(classified(train, labels, test), gold)
    assert set(found) == {"majority", "one_only", "two_only", "all_fields"}
    assert found["majority"] == pytest.approx(1 / 3)
    assert found["one_only"] < 0.5
    assert found["two_only"] > 0.95
    assert found["all_fields"] > 0.95


def test_answers_are_the_same_twice():
    (train, labels), (test, _) = pairs(60, 3), pairs(30, 4)
    assert classified(train, labels, test) == classified(train, labels, test)


@pytest.mark.parametrize(
    ("train", "labels", "names"),
    [
        ([{"t": "a"}, {"t": "b"}], ["x", "x"], {"majority"}),
        ([{"t": "a"}], ["x"], {"majority"}),
        ([{"t": "a b"}, {"t": "c d"}], ["x", "y"], {"majority", "t_only"}),
        ([{"t": " "}, {"t": ""}, {"t": "\t"}], ["x", "y", "z"], {"majority"}),
        ([{"t": "a", "u": ""}, {"t": "b", "u": ""}], ["x", "y"], {"majority", "t_only"}),
        ([{"t": "a"}, {"t": "b", "u": "c"}], ["x", "y"], {"majority", "t_only", "u_only", "all_fields"}),
        ([{"größe (cm)": "a"}, {"größe (cm)": "b"}], ["x", "y"], {"majority", "größe__cm__only"}),
        ([{}, {}], ["x", "y"], {"majority"}),
    ],
)
def test_any_data_has_baselines(train: Texts, labels: list[str], names: set[str]):
    """One label, labels that occur once, empty and absent fields, and test items in another script."""
    test = [{"t": "a"}, {"t": "日本語"}, {"t": ""}, {}]
    found = classified(train, labels, test)
    assert found.keys() == names
    assert all(len(answers) == 4 and set(answers) <= set(labels) for answers in found.values())


def question(index: int, context: str, *answers: str) -> QaItem:
    start = context.index(answers[0])
    return QaItem(index, str(index), "de", "de", context=context, question="?", answers=answers, answer_start=start)


def test_random_spans_have_the_length_of_answers():
    context = " ".join(f"w{n}" for n in range(50))
    train = [question(0, context, "w3"), question(1, context, "w4 w5 w6")]
    test = [question(0, context, "w9"), question(1, "kurz", "kurz"), question(2, "日本語です", "日本")]
    draws = random_spans(train, test)
    assert draws == random_spans(train, test)
    spans = [draw[0] for draw in draws]
    assert {len(span.split()) for span in spans} == {1, 3}
    assert all(f" {span} " in f" {context} " for span in spans)
    assert len(set(spans)) > 5
    assert {(draw[1], draw[2]) for draw in draws} == {("kurz", "日本語です")}


def test_the_score_of_random_spans_is_near_its_expectation():
    """The answer is one of 20 words, so a random word has an F1 of 1/20."""
    items = [question(n, " ".join(f"w{k}" for k in range(20)), f"w{n % 20}") for n in range(400)]
    floors = get_task("tydiqa").shallow_baselines(items, items)
    assert floors == {"random_candidate": pytest.approx(1 / 20, abs=0.01)}


def test_copies_of_the_input_are_scored_as_answers():
    items = [
        FieldsItem(n, str(n), "de", "", fields=(("instruction", "Kopiere."), ("input", f"Satz {n}")), answers=answers)
        for n, answers in enumerate([("Satz 0",), ("anders", "Satz 1")])
    ]
    texts = [dict(item.fields) for item in items]
    assert copied(texts) == {"copied_instruction": ["Kopiere."] * 2, "copied_input": ["Satz 0", "Satz 1"]}


def test_a_text_task_has_copies(tmp_path: Path):
    for split in ("train", "test"):
        lines = "".join(f'{{"a": "Satz {n}", "b": "Satz {n if n % 2 else -1}"}}\n' for n in range(20))
        (tmp_path / f"{split}.jsonl").write_text(lines)
    path = tmp_path / "texts.yaml"
    path.write_text(
        "task: texts\nkind: text\nlanguages: [de]\ndata: {train: train.jsonl, test: test.jsonl}\n"
        'fields: {input: a, answer: b}\nprompt: "Text: {{ input }}\\nKopie:"\n'
    )
    task = get_task(str(path))
    train, test = task.load("de", "train"), task.load("de", "test")
    assert task.shallow_baselines(train, test) == {"copied_input": pytest.approx(0.75)}  # half, and one of two words


def test_only_fields_of_the_prompt_are_read(tmp_path: Path):
    task = get_task(reviews_folder(tmp_path))
    train = task.load("de", "train")
    german, turkish = (task.shallow_baselines(train, task.load(code, "test")) for code in ("de", "tr"))
    assert set(german) == set(turkish) == {"majority", "text_only"}
    assert german["text_only"] > 0.9
    assert turkish["text_only"] < 0.5  # a language that was not trained on
    both = get_task(declare_reviews(tmp_path, prompt=dict.fromkeys(("de", "tr"), "{{ product }}: {{ text }}")))
    floors = both.shallow_baselines(train, both.load("de", "test"))
    assert set(floors) == {"majority", "text_only", "product_only", "all_fields"}


def test_declared_tasks_pass_the_check_of_floors(tmp_path: Path):
    check_floors(task_class(reviews_folder(tmp_path)))
    check_floors(task_class(declare_reviews(tmp_path, source="tr")))


def test_floors_of_packaged_tasks_keep_their_names(tmp_path: Path):
    names = {"atlas-nli": {"majority", "hypothesis_only", "overlap"}, "atlas-qa": {"random_candidate"}}
    data = {"tydiqa": folders.tydiqa_folder(tmp_path)}
    for name in ("atlas-nli", "atlas-qa", "tydiqa"):
        task = get_task(name)
        train, test = (task.load("en", split, data_dir=data.get(name))[:50] for split in ("train", "test"))
        assert set(task.shallow_baselines(train, test)) == names.get(name, {"random_candidate"})
