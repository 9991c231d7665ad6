"""What `whichlora data check` shows of invented reviews, of packaged tasks, and of data with faults."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import folders
import pytest
from chat_models import FAMILIES, save_chat_model
from reviews import declare_reviews, review_rows, reviews_folder, write_reviews
from transformers import AutoTokenizer

from whichlora.config.base_model import read_base_model
from whichlora.config.plan import Plan
from whichlora.data.tasks import get_task
from whichlora.data.windows import PROMPT_TOKENS
from whichlora.data_check import main, reading

Checked = Callable[..., dict[str, str]]


@pytest.fixture
def checked(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Return a function that checks a task and returns the sections of the output by title."""

    def call(task: str, *arguments: str, estimate: str = "false") -> dict[str, str]:
        status = main(["check", task, "--model", tiny_model, "--estimate", estimate, *arguments])
        output = capsys.readouterr()
        assert status == 0, output.err
        sections = [section.partition("\n") for section in output.out.strip().split("\n\n")]
        return {title: text for title, _, text in sections}

    return call


def section(sections: dict[str, str], title: str) -> str:
    """Return the text of the section whose title begins with `title`."""
    (found,) = [text for name, text in sections.items() if name.startswith(title)]
    return found


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n")]


def test_reviews_in_german_and_turkish(checked: Checked, tmp_path: Path):
    task = reviews_folder(tmp_path, group=None, about={"licence": "CC0", "faults": ["invented"]})
    rows = review_rows("tr", "train", 100)
    rows[0]["review"] = review_rows("tr", "test", 1)[0]["review"].upper().replace("İ", "i")
    write_reviews(tmp_path / "train-tr.csv", rows)
    sections = checked(task, estimate="true")
    title = "reviews: one of 5 labels, scored by likelihood; source de; languages de, tr; not parallel"
    assert sections[title] == "  licence: CC0\n  faults: invented"
    form = "CSV with a header, separated by commas, quoted cells"
    files = [re.split(r"  +", line.strip()) for line in sections["Files"].split("\n")]
    assert files == [
        ["file", "splits", "languages", "rows", "format"],
        *(
            [f"{split}-{code}.csv", split, code, n, form]
            for split, n in (("train", "100"), ("test", "50"))
            for code in ("de", "tr")
        ),
    ]
    assert sections["Items"].split("\n") == [
        "  language  train  validation  test",
        "  de           90          10    50",
        "  tr           90          10    50",
        "  Validation items are held out of the training items.",
    ]
    labels = cells(sections["Labels"])
    assert labels[0] == ["language", "split", "1", "2", "3", "4", "5"]
    assert [row[:2] for row in labels[1:]] == [[c, s] for c in ("de", "tr") for s in ("train", "validation", "test")]
    assert all(97 <= sum(map(int, row[2::2])) <= 103 for row in labels[1:])
    assert section(sections, "Repeated texts").startswith("  tr: 1 train item repeats a test item")
    lengths = cells(section(sections, "Tokens of prompt and answer"))
    assert all(0 < int(row[2]) <= int(row[3]) <= int(row[4]) < 200 and row[5:] == ["0", "0"] for row in lengths[1:])
    german = section(sections, "Train items in de, prompt (|) and answer (>)")
    first = review_rows("de", "train", 1)[0]
    word = {"1": "sehr schlecht", "2": "schlecht", "3": "mittel", "4": "gut", "5": "sehr gut"}[first["stars"]]
    assert german.split("\n")[:5] == [
        "  item train0",
        "    | Rate the review from 1 to 5.",
        f"    | {first['review']}",
        "    | Stars:",
        f"    >  {word}</s>",
    ]
    assert german.count("  item ") == section(sections, "Train items in tr").count("  item ") == 3
    assert cells(sections["Items of a run"]) == [
        ["target", "tl_ratio", "source", "items", "target", "items", "steps", "validation", "test"],
        ["tr", "0", "90", "0", "23", "10+10", "50+50"],
        ["tr", "0.01", "89", "1", "23", "10+10", "50+50"],
        ["tr", "0.1", "81", "9", "23", "10+10", "50+50"],
        ["tr", "0.5", "45", "45", "23", "10+10", "50+50"],
    ]
    assert [line.split()[:2] for line in section(sections, "Shallow baselines").split("\n")] == [
        ["de:", "majority"],
        ["tr:", "majority"],
    ]
    assert "(23 steps of " in section(sections, "Time of a run on this machine: ")
    assert "an estimate from 4 steps and 50 items" in section(sections, "Time of a run on this machine: ")
    assert "Warnings" not in sections  # repeated items are listed above


def test_what_is_left_out_and_cannot_be_trained_is_shown(checked: Checked, tmp_path: Path):
    task = reviews_folder(tmp_path, on_bad="skip")
    (tmp_path / "train-tr.csv").unlink()
    rows = review_rows("de", "test", 20)
    rows[4]["stars"] = "6"
    write_reviews(tmp_path / "test-de.csv", rows)
    sections = checked(task, "--language", "tr")
    assert "1 of 20 rows in test-de.csv are left out" in sections["Items"]
    assert "label '6' is not declared" in sections["Items"]
    runs = sections["Items of a run"].split("\n")
    assert runs[1].split()[:4] == ["tr", "0", *runs[1].split()[2:4]]
    assert all(line.endswith("no training items in tr") for line in runs[2:])
    assert "Test items in tr, prompt (|) and answer (>)" in sections


@pytest.mark.parametrize(
    ("tokens", "scoring", "shown"), [(1, "generate", True), (1, "auto", False), (90, "generate", False)]
)
def test_answers_that_cannot_be_generated_whole_are_counted(checked: Checked, tmp_path: Path, tokens, scoring, shown):
    task = reviews_folder(tmp_path, answer={"tokens": tokens}, metrics=["macro_f1"])
    sections = checked(task, "--scoring", scoring)
    lengths = section(sections, "Tokens of prompt and answer")
    counted = f"test answers in de have more than the {tokens} tokens that are generated; the longest has "
    assert (counted in lengths) == shown
    assert section(sections, "Shallow baselines: macro F1 in points, without a language model")


def test_items_that_are_too_long_for_the_model_are_counted(checked: Checked, tmp_path: Path, capsys):
    task = reviews_folder(tmp_path)
    rows = review_rows("de", "train", 100)
    for row in rows[:3]:
        row["review"] *= 200
    write_reviews(tmp_path / "train-de.csv", rows)
    sections = checked(task)
    lengths = {tuple(row[:2]): row for row in cells(section(sections, "Tokens of prompt and answer"))}
    too_long = [int(lengths["de", split][-1]) for split in ("train", "validation", "test")]
    assert (sum(too_long), too_long[2]) == (3, 0)
    assert int(lengths["de", "train"][4].replace(",", "")) > 2048
    assert "tr: model=" in sections["Runs that are not possible"]
    assert "the context length is 2048 tokens" in sections["Runs that are not possible"]


def test_a_study_in_one_language_has_one_row(checked: Checked, tmp_path: Path):
    reviews_folder(tmp_path)
    sections = checked(declare_reviews(tmp_path, languages=["tr"], source=None))
    assert [row[0] for row in cells(sections["Items"])] == ["language", "tr", "Validation"]
    assert sections["Items"].endswith("; items with the same product are not divided.")
    assert [row[:3] for row in cells(sections["Items of a run"])[1:]] == [["tr", "1", "0"]]


@pytest.mark.parametrize("name", ["atlas-nli", "atlas-qa", "align-words"])
def test_packaged_tasks_are_shown(checked: Checked, name: str):
    sections = checked(name, "--language", "sw")
    assert section(sections, "Repeated texts").strip() == "none"
    assert section(sections, "Train items in sw").count("  item ") == 3
    assert len(cells(sections["Items of a run"])) == (2 if name == "align-words" else 5)


def test_of_many_languages_the_first_are_shown(checked: Checked, tmp_path: Path):
    codes = [f"l{n}" for n in range(24)]
    task = declare_reviews(tmp_path, languages=["de", *codes], data={"train": "train.csv", "test": "test-{lang}.csv"})
    write_reviews(tmp_path / "train.csv", review_rows("de", "train", 40))
    for code in ("de", *codes):
        write_reviews(tmp_path / f"test-{code}.csv", review_rows("tr", "test", 10))
    sections = checked(task)
    assert section(sections, "reviews: ") is not None
    assert any(title.endswith("; languages 25; not parallel") for title in sections)
    assert [row[0] for row in cells(sections["Items"])][1:8] == ["de", *codes[:6]]
    assert "18 more target languages, each shown with --language: l6, l7, l8, l9, l10, l11, ..." in sections["Items"]


@pytest.mark.slow
def test_long_contexts_and_languages_without_files(checked: Checked, tmp_path: Path, tiny_model: str):
    """Contexts are read in windows, and a folder may lack some of the languages that a packaged task pools."""
    folder = folders.tydiqa_folder(tmp_path, sentences=140)
    (tmp_path / "te.dev.json").unlink()
    sections = checked("tydiqa", "--data_dir", folder, "--train_size", "40", "--validation_size", "9")
    assert ["en.train.json", "train,", "validation", "en"] in cells(sections["Files"])
    rows = cells(section(sections, "Tokens of prompt and answer"))
    assert {row[0] for row in rows[1:]} == {"en", "sw", "bn"}
    tokenizer, task = AutoTokenizer.from_pretrained(tiny_model), get_task("tydiqa")
    for code, split, *_, windows, too_long in rows[1:]:
        prompts = [task.prompt(item) for item in task.load(code, split, data_dir=folder)]
        lengths = [len(ids) for ids in tokenizer(prompts).input_ids]
        assert (int(windows), too_long) == (sum(length > PROMPT_TOKENS for length in lengths), "0")
    assert 0 < int(rows[1][5]) < 60
    assert "has no validation file in te" in section(sections, "Runs that are not possible")
    assert any(line.endswith("no training items in bn") for line in sections["Items of a run"].split("\n"))


def test_hidden_characters_of_the_data_are_escaped(checked: Checked, tmp_path: Path):
    reviews_folder(tmp_path)
    rows = [row | {"review": f"\u202e\x1b[31m ن\u200cم {row['review']}"} for row in review_rows("de", "train", 30)]
    write_reviews(tmp_path / "train-de.csv", rows)
    text = section(checked(str(tmp_path / "reviews.yaml")), "Train items in de")
    assert r"| \u202e\x1b[31m ن" in text
    assert "\u200c" in text
    assert not {"\u202e", "\x1b"} & set(text)


def test_texts_are_shown_on_a_terminal_that_has_not_their_characters(tmp_path: Path, tiny_model: str, monkeypatch):
    task = reviews_folder(tmp_path)
    before = set(tmp_path.iterdir())
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    monkeypatch.chdir(tmp_path)
    assert main(["check", task, "--model", tiny_model, "--estimate", "false"]) == 0
    assert rb"| Das Ger\xe4t ist" in output.getvalue()
    assert set(tmp_path.iterdir()) == before  # nothing is tracked


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["{folder}/none.yaml"], "task={folder}/none.yaml: "),
        (["{folder}/reviews.yaml", "--language", "az"], "language=az: "),
        (["{folder}/reviews.yaml", "--train_size", "5000"], "train_size=5000: reviews has "),
        (["{folder}/reviews.yaml", "--model", "{folder}"], "model={folder}: "),
        (["{folder}/reviews.yaml", "--data_dir", "{folder}/none"], "data_dir={folder}/none: is not a folder"),
        (["{folder}/bad.yaml"], "task={folder}/bad.yaml: 1 of 30 rows cannot be used: train-de.csv line 2: "),
    ],
)
def test_a_bad_task_is_one_line(arguments: list[str], error: str, tmp_path: Path, tiny_model: str, capsys):
    reviews_folder(tmp_path)
    if "bad" in arguments[0]:
        write_reviews(tmp_path / "train-de.csv", [row | {"stars": "9"} for row in review_rows("de", "train", 30)[:1]])
        rows = review_rows("de", "train", 30)
        rows[0]["stars"] = "9"
        write_reviews(tmp_path / "train-de.csv", rows)
        Path(declare_reviews(tmp_path)).rename(tmp_path / "bad.yaml")
    given = [text.format(folder=tmp_path) for text in arguments]
    model = [] if "--model" in given else ["--model", tiny_model]
    assert main(["check", *given, *model, "--estimate", "false"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {error.format(folder=tmp_path)}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("variant", ["none", "full", "adalora", "vera", "pissa"])
def test_the_time_of_every_kind_of_variant_is_measured(variant: str, tiny_model: str, tmp_path: Path):
    from whichlora.config.options import parse_options
    from whichlora.config.resolve import resolve
    from whichlora.data_check.estimate import estimate

    plan: Plan = resolve(parse_options({"variant": variant, "model": tiny_model, "train_size": "100"}))
    found = estimate(plan)
    assert found.item > 0
    assert (found.step > 0) == (found.steps > 0) == (variant != "none")
    assert found.steps == (0 if variant == "none" else 25)
    assert found.tested == 600
    assert found.validated == (120 if variant == "none" else 240)
    assert ("steps of" in str(found)) == (variant != "none")


def test_lengths_and_prompts_are_those_of_the_chat_template(checked: Checked, tmp_path: Path):
    """Also where no run is possible, and for questions, whose training examples may be windows."""
    folder = save_chat_model(tmp_path / "model", FAMILIES["chatml"])
    encoder = read_base_model(str(folder), None).encoder(get_task("atlas-qa"))
    for item in get_task("atlas-qa").load("sw", "train")[:5]:
        assert reading._length(encoder, item) == len(encoder.example(item))
    task = reviews_folder(tmp_path)
    rows = review_rows("de", "test", 20)
    rows[0]["review"] = "gut " * 5000  # longer than the context
    write_reviews(tmp_path / "test-de.csv", rows)
    sections = checked(task, "--model", str(folder))
    assert "Items of a run" not in sections
    assert "<|im_start|>user" in section(sections, "Train items in de")
