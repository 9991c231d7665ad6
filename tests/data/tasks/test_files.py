"""All file formats and names, and the hub, give the same items; errors say what to correct."""

from __future__ import annotations

import json
import shutil

import folders
import pytest

from whichlora.data.tasks import get_task
from whichlora.errors import OptionError

XNLI, QA = get_task("xnli"), get_task("tydiqa")
NAMES = ("{split}-{language}", "{language}.{split}")


def named(pattern: str, split: str, language: str) -> str:
    return pattern.format(split=split, language=language)


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("pattern", NAMES)
@pytest.mark.parametrize("validation", ["dev", "validation"])
def test_nli_reads_the_same_from_every_format_and_name(tmp_path, ending, pattern, validation):
    for split, name in (("validation", validation), ("test", "test")):
        rows = folders.xnli_rows("hi", split, 30)
        folders.write(tmp_path / f"{named(pattern, name, 'hi')}.{ending}", rows)
        items = XNLI.load("hi", split, data_dir=str(tmp_path))
        kept = {item.id: item for item in items}
        assert len(kept) == (10 if split == "validation" else 30)
        for item in items:
            row = rows[int(item.id.rpartition("-")[2])]
            assert (item.premise, item.hypothesis, item.label) == (row["premise"], row["hypothesis"], row["label"])
            assert item.stratum == f"{row['label']} {row['genre']}"


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("pattern", NAMES)
@pytest.mark.parametrize("validation", ["dev", "validation"])
def test_qa_reads_the_same_from_every_format_and_name(tmp_path, ending, pattern, validation):
    for split, name in (("train", "train"), ("validation", validation)):
        folders.write(tmp_path / f"{named(pattern, name, 'te')}.{ending}", folders.tydiqa_rows("te", split, 30))
    assert len(QA.load("te", "train", data_dir=str(tmp_path))) == 20
    assert len(QA.load("te", "validation", data_dir=str(tmp_path))) == 10
    items = QA.load("te", "test", data_dir=str(tmp_path))
    for item, row in zip(items, folders.tydiqa_rows("te", "validation", 30), strict=True):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert (item.id, item.context, item.question) == (row["id"], row["context"], row["question"])
        assert item.answers == tuple(dict.fromkeys(texts))
        if ending == "tsv":  # which says no starts: the first place counts
            assert item.answer_start == item.context.index(texts[0])
        else:
            assert item.answer_start == starts[0]


@pytest.mark.parametrize("genre", [True, False])
@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_labels_may_be_numbers_and_genres_missing(tmp_path, ending, genre):
    rows = folders.xnli_rows("en", "test", 30, genre=genre)
    numbered = folders.by_number(rows)
    if ending == "tsv":
        numbered = [row | {"label": str(row["label"])} for row in numbered]
    folders.write(tmp_path / f"test-en.{ending}", numbered)
    items = XNLI.load("en", "test", data_dir=str(tmp_path))
    assert [item.label for item in items] == [row["label"] for row in rows]
    assert [item.stratum for item in items] == [f"{r['label']} {r['genre']}" if genre else r["label"] for r in rows]


def test_quotation_marks_and_odd_line_ends_are_part_of_a_text(tmp_path):
    text = 'He said "no\u2028yes\x85 and left'
    (tmp_path / "test-en.tsv").write_bytes(f"\ufeff{text}\t'tis \"so\tneutral\r\n{text}\tb\tneutral\n\n".encode())
    one, two = XNLI.load("en", "test", data_dir=str(tmp_path))
    assert (one.premise, one.hypothesis, one.label) == (text, "'tis \"so", "neutral")
    assert two.premise == text


GOOD = "A man sleeps.\tHe rests.\tentailment\ttravel\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "test-en.tsv",
            GOOD + "A man sleeps.\tHe rests.\n",
            "test-en.tsv line 2: label ''; allowed are entailment",
        ),
        ("test-en.tsv", GOOD * 2 + "a\tb\tmaybe\n", "test-en.tsv line 3: label 'maybe'; allowed are entailment"),
        ("test-en.tsv", "premise\thypothesis\tlabel\n" + GOOD, "test-en.tsv line 1: label 'label'"),
        ("test-en.tsv", GOOD.replace("\n", "\tx\n"), "test-en.tsv line 1: more columns than premise, hypothesis"),
        ("en.test.tsv", "", "en.test.tsv has no items"),
        ("test-en.tsv", GOOD.encode() + b"\xff\n", "test-en.tsv cannot be read (line 2: 'utf-8'"),
        ("test-en.jsonl", '{"premise": "a", "hypothesis": "b", "label": 0}\n{"premise"\n', "cannot be read (line 2: "),
        (
            "test-en.jsonl",
            '{"premise": "a", "label": 0}\n',
            "test-en.jsonl line 1: 'hypothesis' is missing or not a string",
        ),
        ("test-en.jsonl", "[1]\n", "cannot be read (line 1: not a JSON object"),
        ("test-en.json", '{"version": 1}', "test-en.json cannot be read (not SQuAD JSON: KeyError('data')"),
        ("test-en.json", '{"data":\n [', "test-en.json cannot be read ("),
        ("test-en.parquet", "text", "test-en.parquet cannot be read ("),
    ],
)
def test_errors_in_a_file_name_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OptionError) as caught:
        XNLI.load("en", "test", data_dir=str(tmp_path))
    assert str(caught.value).startswith(f"data_dir={tmp_path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_ambiguous_file_is_an_error(tmp_path):
    with pytest.raises(OptionError, match=r"^data_dir=/no/such: is not a folder"):
        XNLI.load("en", "test", data_dir="/no/such")
    with pytest.raises(
        OptionError, match=rf"^data_dir={tmp_path}: has no test file in sw; expected a name such as test-"
    ):
        XNLI.load("sw", "test", data_dir=str(tmp_path))
    for name in ("dev-sw.tsv", "sw.validation.tsv"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(OptionError, match=r"has both dev-sw.tsv and sw.validation.tsv; keep one"):
        QA.load("sw", "test", data_dir=str(tmp_path))


def question(folder, **changes) -> str:
    row = {"id": "swahili-7", "question": "Who?", "context": "Ali met Ali and Asha."}
    answers = changes.pop("answers", [{"text": "Ali", "answer_start": 8}])
    (folder / "sw.dev.jsonl").write_text(json.dumps(row | {"answers": answers} | changes) + "\n")
    return str(folder)


@pytest.mark.parametrize(
    ("answers", "start"),
    [
        ([{"text": "Ali", "answer_start": 8}], 8),
        ([{"text": "Ali", "answer_start": 9}], 8),
        ([{"text": "Ali", "answer_start": 3}], 0),
        ([{"text": "Ali", "answer_start": 999}], 8),
        ([{"text": "Asha", "answer_start": -1}], 16),
        ([{"text": "Asha"}], 16),
        ({"text": ["Asha", "Ali"], "answer_start": [0, 0]}, 16),
        ({"text": ["Asha"]}, 16),
        (["Asha", "Ali"], 16),
    ],
)
def test_an_answer_that_is_not_where_it_should_be_is_looked_for(tmp_path, answers, start):
    (item,) = QA.load("sw", "test", data_dir=question(tmp_path, answers=answers))
    assert item.answer_start == start
    assert item.context[start:].startswith(item.answers[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answers": [{"text": "Juma", "answer_start": 0}]},
            "answer 'Juma' is not in the context (item swahili-7)",
        ),
        ({"answers": [{"text": "", "answer_start": 0}]}, "has no answer (item swahili-7)"),
        ({"answers": []}, "has no answer (item swahili-7)"),
        ({"answers": [{"answer_start": 0}]}, "answers must be texts with their start offsets (item swahili-7)"),
        ({"answers": {"text": ["Ali"], "answer_start": [0, 1]}}, "answers must be texts with their start offsets"),
        ({"context": None}, "'context' is missing or not a string"),
        ({"id": 7}, "'id' is missing or not a string"),
    ],
)
def test_an_error_in_an_item_names_its_id(tmp_path, changes, message):
    with pytest.raises(OptionError) as caught:
        QA.load("sw", "test", data_dir=question(tmp_path, **changes))
    assert "sw.dev.jsonl line 1: " in str(caught.value)
    assert message in str(caught.value)


def test_a_duplicate_id_is_an_error(tmp_path):
    rows = folders.tydiqa_rows("sw", "validation", 5)
    folders.write(tmp_path / "sw.dev.json", [*rows, rows[2]])
    with pytest.raises(OptionError, match=r"swahili-2 occurs 2 times"):
        QA.load("sw", "test", data_dir=str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return the working directory, from which `datasets` reads local copies of the hub's layout."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def card(folder, configs: dict[str, tuple[str, ...]]) -> None:
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {s}\n    path: {config}/{s}-*" for s in splits]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def test_nli_from_the_hub_trains_on_train_and_validates_on_validation(hub):
    folder = hub / "facebook" / "xnli"
    splits = ("train", "validation", "test")
    for language in ("en", "th"):
        for split in splits:
            rows = folders.by_number(folders.xnli_rows(language, split, 30, genre=False))
            folders.write(folder / language / f"{split}-00000-of-00001.parquet", rows)
    card(folder, dict.fromkeys(("en", "th"), splits))
    for language in ("en", "th"):
        for split in splits:
            items = XNLI.load(language, split)
            rows = folders.xnli_rows(language, split, 30)
            assert [item.premise for item in items] == [row["premise"] for row in rows]
            assert [item.label for item in items] == [row["label"] for row in rows]


def test_qa_from_the_hub_takes_the_rows_of_the_language(hub):
    folder = hub / "google-research-datasets" / "tydiqa"
    for split in ("train", "validation"):
        rows = [
            row for pair in zip(*(folders.tydiqa_rows(k, split, 30) for k in ("en", "bn")), strict=True) for row in pair
        ]
        folders.write(folder / "secondary_task" / f"{split}-00000-of-00001.parquet", rows)
    card(folder, {"secondary_task": ("train", "validation")})
    train, validation, test = (QA.load("bn", split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (20, 10, 30)
    assert all(item.id.startswith("bengali-") for item in (*train, *validation, *test))
    row = folders.tydiqa_rows("bn", "validation", 1)[0]
    assert (test[0].context, test[0].answers[0]) == (row["context"], row["answers"]["text"][0])
    assert test[0].answer_start == row["answers"]["answer_start"][0]
    shutil.rmtree(folder)


@pytest.mark.parametrize(("task", "name"), [(XNLI, "facebook/xnli"), (QA, "google-research-datasets/tydiqa")])
def test_an_unreachable_hub_is_an_error_that_suggests_a_folder(hub, task, name):
    with pytest.raises(OptionError) as caught:
        task.load("sw", "test")
    assert str(caught.value).startswith(f"data_dir=auto: {name} cannot be read from the hub (")
    assert str(caught.value).endswith("set data_dir to a folder with the data")
