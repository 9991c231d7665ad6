"""chrF and ROUGE-L against their definitions, in several scripts, and the metrics of declared tasks."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version

import pytest
from rouge_score.rouge_scorer import RougeScorer

from whichlora.data.tasks import task_class
from whichlora.data.tasks.text_metrics import chrf, rouge_l, words


def naive_chrf(text: str, reference: str) -> float:
    """Return chrF2 by its definition: mean precision and recall over n-grams of 1 to 6 characters without spaces."""
    text, reference = text.replace(" ", ""), reference.replace(" ", "")
    precision, recall = [], []
    for n in range(1, 7):
        a, b = (Counter(s[i : i + n] for i in range(len(s) - n + 1)) for s in (text, reference))
        if a and b:
            precision.append((a & b).total() / a.total())
            recall.append((a & b).total() / b.total())
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 5 * p * r / (4 * p + r) if p + r else 0.0


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("the cat sat on the mat", "the cat is on the mat"),
        ("नमस्ते दुनिया", "नमस्कार दुनिया"),
        ("今日は晴れです", "今日は雨です"),
        ("abcdefg", "abcdefg"),
    ],
)
def test_chrf_of_one_text_follows_its_definition(text, reference):
    assert chrf([text], [(reference,)]) == pytest.approx(naive_chrf(text, reference), abs=1e-9)


def test_the_best_reference_counts_and_the_numbers_of_references_may_differ():
    assert chrf(["b c d", "x"], [("z", "b c d"), ("x",)]) == pytest.approx(1)
    assert rouge_l(["b c d", "x"], [("z", "b c d"), ("x",)]) == pytest.approx(1)
    assert chrf(["", ""], [("a",), ("b",)]) == rouge_l(["", ""], [("a",), ("b",)]) == 0


def test_rouge_l_of_latin_letters_is_that_of_the_library():
    texts, gold = ["The cat sat, on a mat!", "no"], [("the cat lay on the mat", "a mat"), ("yes no",)]
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score_multi(list(g), t)["rougeL"].fmeasure for t, g in zip(texts, gold, strict=True)]
    assert rouge_l(texts, gold) == pytest.approx(sum(expected) / 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße, İstanbul 3.5", ["straße", "i̇stanbul", "3", "5"]),
        ("केन्या की राजधानी।", ["केन्या", "की", "राजधानी"]),
        ("مرحبًا بالعالم", ["مرحبًا", "بالعالم"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("東京タワー2", ["東", "京", "タ", "ワ", "ー", "2"]),
        ("ที่นี่ok", ["ที่", "นี่", "ok"]),
        ("e\u0301t\u00e9", ["\u00e9t\u00e9"]),
        (" \u0301 …", []),
    ],
)
def test_words_of_every_script(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [("केन्या देश", "केन्या शहर", 0.5), ("東京", "東北", 0.5), ("a b c d", "a x c", 2 * 2 / 7)],
)
def test_rouge_l_is_the_longest_common_subsequence_of_words(text, reference, expected):
    assert rouge_l([text], [(reference,)]) == pytest.approx(expected)


def declared(tmp_path, kind: str, *lines: str):
    (tmp_path / f"{kind}.yaml").write_text(
        "\n".join([f"task: {kind}-t", f"kind: {kind}", "languages: [de]", "data: {train: a.csv, test: b.csv}", *lines])
    )
    return task_class(str(tmp_path / f"{kind}.yaml"))()


CHOICE = ("fields: {text: t, answer: a}", "labels: [ja, nein, '1']", "prompt: '{{ text }}'")
TEXT = ("fields: {text: t, answer: a}", "prompt: '{{ text }}'")


def test_every_declared_metric_is_reported(tmp_path):
    task = declared(tmp_path, "choice", *CHOICE, "metrics: [macro_f1, accuracy]")
    scores = task.metrics(["ja", None, "ja"], [("ja",), ("nein",), ("nein",)])
    assert scores == pytest.approx({"f1": 1 / 3, "accuracy": 1 / 3, "macro_f1": (2 / 3) / 3})
    assert task.headline == "macro_f1"
    task = declared(tmp_path, "text", *TEXT)
    scores = task.metrics(["a b", None], [("a b", "c"), ("d",)])
    assert scores.keys() == {"f1", "exact_match", "chrf", "rouge_l"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert (scores["exact_match"], scores["rouge_l"], task.headline) == (0.5, 0.5, "f1")


def test_the_versions_of_the_libraries_identify_results_that_use_them(tmp_path):
    f1 = declared(tmp_path, "text", *TEXT, "metrics: [f1]")
    assert f1.metrics(["a"], [("a",)]).keys() == {"f1", "exact_match"}
    assert "sacrebleu" not in f1.prompt_version
    both = declared(tmp_path, "text", *TEXT)
    assert both.prompt_version.endswith(f"sacrebleu-{version('sacrebleu')} rouge-score-{version('rouge-score')}")
    assert declared(tmp_path, "text", *TEXT, "metrics: [rouge_l]").headline == "rouge_l"
