"""XNLI and TyDi QA in the layouts in which they are distributed give the items of one file per language and split."""

from __future__ import annotations

import json
from pathlib import Path

import folders
import pytest
from layouts import write_parquet

from whichlora.data.tasks import get_task
from whichlora.data.tasks.items import LABELS
from whichlora.errors import OptionError

XNLI, QA = get_task("xnli"), get_task("tydiqa")
CODES = ("en", "sw", "hi")
ALL = XNLI.languages


def items(task, folder: Path, codes=CODES):
    """Return the items of all splits in some languages."""
    splits = ("train", "validation", "test")
    return {(c, s): task.load(c, s, data_dir=str(folder)) for c in codes for s in splits}


def xnli_rows(code: str, split: str, n: int = 30) -> list[folders.Row]:
    rows = folders.xnli_rows(code, split, n)
    return [row | {"premise": f'He said "{row["premise"]}', "hypothesis": f'{row["hypothesis"]}"'} for row in rows]


def flat(folder: Path, *, train: bool = False, genre: bool = True) -> Path:
    """Write one file per language and split, with genres if the distributed layout has them."""
    for code in CODES:
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
            if train or split != "train":
                rows = [
                    row if genre else {k: v for k, v in row.items() if k != "genre"} for row in xnli_rows(code, split)
                ]
                folders.write(folder / f"{name}-{code}.jsonl", rows)
    return folder


def official(split: str) -> list[folders.Row]:
    """Return the rows of a file of XNLI-1.0, with the languages one after another and in different orders."""
    rows = []
    for code in CODES:
        own = [
            {
                "language": code,
                "gold_label": row["label"],
                "sentence1_binary_parse": "",
                "sentence1": row["premise"],
                "sentence2": row["hypothesis"],
                "promptID": str(n // 3),
                "pairID": str(n),
                "genre": row["genre"],
            }
            for n, row in enumerate(xnli_rows(code, split))
        ]
        rows += own if code != "hi" else own[::-1]
    return rows


def tsv(path: Path, rows: list[folders.Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("inside", ["", "XNLI-1.0/"])
@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_xnli_as_published_is_divided_by_its_language_column_and_aligned(tmp_path, inside, ending):
    for split, name in (("validation", "dev"), ("test", "test")):
        write = tsv if ending == "tsv" else folders.write
        write(tmp_path / "published" / f"{inside}xnli.{name}.{ending}", official(split))
    assert items(XNLI, tmp_path / "published") == items(XNLI, flat(tmp_path / "flat"))


@pytest.mark.parametrize("inside", ["", "multinli/", "XNLI-MT-1.0/multinli/"])
def test_xnli_is_trained_on_its_machine_translated_training_set(tmp_path, inside):
    for split, name in (("validation", "dev"), ("test", "test")):
        tsv(tmp_path / "published" / "XNLI-1.0" / f"xnli.{name}.tsv", official(split))
    for code in ("en", "sw"):
        rows = [
            {
                "premise": r["premise"],
                "hypo": r["hypothesis"],
                "label": r["label"].replace("contradiction", "contradictory"),
            }
            for r in xnli_rows(code, "train")
        ]
        tsv(tmp_path / "published" / f"{inside}multinli.train.{code}.tsv", rows)
    found, expected = items(XNLI, tmp_path / "published"), items(XNLI, flat(tmp_path / "flat", train=True))
    for (code, split), loaded in found.items():
        if split != "train":
            assert loaded == expected[code, split]
        else:
            texts = [] if code == "hi" else [item.premise for item in expected[code, split]]
            assert [item.premise for item in loaded] == texts


def by_number(row: folders.Row) -> folders.Row:
    return {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": LABELS.index(row["label"])}


@pytest.mark.parametrize("pattern", ["{code}/{split}-00000-of-00001.parquet", "{split}/{code}.parquet"])
def test_xnli_of_the_hub_and_of_mteb_is_read_from_a_folder(tmp_path, pattern):
    for code in CODES:
        for split in ("train", "validation", "test"):
            rows = [by_number(row) for row in xnli_rows(code, split)]
            write_parquet(tmp_path / "hub" / pattern.format(code=code, split=split), rows, {"label": LABELS})
    assert items(XNLI, tmp_path / "hub") == items(XNLI, flat(tmp_path / "flat", train=True, genre=False))


def test_xnli_with_all_languages_in_a_row_is_read(tmp_path):
    for split in ("train", "validation", "test"):
        of = {code: xnli_rows(code, split) for code in ALL}
        rows = [
            {
                "premise": {code: of[code][n]["premise"] for code in ALL},
                "hypothesis": {"language": list(ALL), "translation": [of[code][n]["hypothesis"] for code in ALL]},
                "label": LABELS.index(of["en"][n]["label"]),
            }
            for n in range(30)
        ]
        write_parquet(tmp_path / "hub" / "all_languages" / f"{split}-00000-of-00001.parquet", rows, {"label": LABELS})
    assert items(XNLI, tmp_path / "hub") == items(XNLI, flat(tmp_path / "flat", train=True, genre=False))


def test_xtreme_quotes_its_tsv_files(tmp_path):
    """Flat files in which cells are in quotation marks, and marks within them doubled."""
    for code in CODES:
        for split, name in (("validation", "dev"), ("test", "test")):
            cells = [[row["premise"], row["hypothesis"], row["label"]] for row in xnli_rows(code, split)]
            quoted = [['"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in line] for line in cells]
            path = tmp_path / "xtreme" / f"{name}-{code}.tsv"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join("\t".join(line) + "\n" for line in quoted), encoding="utf-8")
    assert items(XNLI, tmp_path / "xtreme") == items(XNLI, flat(tmp_path / "flat", genre=False))


def test_quotation_marks_are_text_unless_all_enclose_cells(tmp_path):
    lines = ['"Yes."\tHe said ""yes""\tneutral', '"No"\tb\tneutral']
    (tmp_path / "test-en.tsv").write_text("\n".join(lines))
    assert [item.premise for item in XNLI.load("en", "test", data_dir=str(tmp_path))] == ['"Yes."', '"No"']


@pytest.mark.parametrize("end", ["\t", ""])
def test_the_line_of_a_blanked_label_says_so(tmp_path, end):
    (tmp_path / "test-en.tsv").write_text(f"a\tb{end}\n")
    with pytest.raises(OptionError, match=r"test-en.tsv line 1: label ''; .*; XTREME's test files have no labels"):
        XNLI.load("en", "test", data_dir=str(tmp_path))


def test_blanked_answers_are_said_to_be_missing(tmp_path):
    rows = [
        row | {"answers": {"text": [""], "answer_start": [0]}} for row in folders.tydiqa_rows("sw", "validation", 5)
    ]
    folders.write(tmp_path / "sw.dev.json", rows)
    with pytest.raises(OptionError, match=r"has no answer, as all 5 items; XTREME's test files have none"):
        QA.load("sw", "test", data_dir=str(tmp_path))


QA_CODES = ("en", "sw", "te")
QA_NAMES = {"en": "english", "sw": "swahili", "te": "telugu"}


def qa_rows(code: str, split: str) -> list[folders.Row]:
    """Return questions with ids such as `swahili--1-0`."""
    rows = folders.tydiqa_rows(code, split, 30)
    return [row | {"id": f"{QA_NAMES[code]}--{n}-0"} for n, row in enumerate(rows)]


def mixed(split: str, codes=QA_CODES) -> list[folders.Row]:
    """Return the questions of all languages, alternating."""
    return [row for group in zip(*(qa_rows(code, split) for code in codes), strict=True) for row in group]


def qa_flat(folder: Path, *, train: bool = True) -> Path:
    for code in QA_CODES:
        folders.write(folder / f"{code}.dev.json", qa_rows(code, "validation"))
        if train:
            folders.write(folder / f"{code}.train.json", qa_rows(code, "train"))
    return folder


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_tydiqa_as_published_is_divided_by_its_ids(tmp_path, version):
    folders.write(tmp_path / "published" / f"tydiqa-goldp-v{version}-train.json", mixed("train"))
    folders.write(tmp_path / "published" / f"tydiqa-goldp-v{version}-dev.json", mixed("validation"))
    assert items(QA, tmp_path / "published", QA_CODES) == items(QA, qa_flat(tmp_path / "flat"), QA_CODES)


PATHS = {
    "archive of dev": ("tydiqa-goldp-v1.1-train.json", "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{name}.json"),
    "XTREME": (
        "tydiqa-goldp-v1.1-train/tydiqa.goldp.{code}.train.json",
        "tydiqa-goldp-v1.1-dev/tydiqa.goldp.{code}.dev.json",
    ),
    "XTREME, with its folder": (
        "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{code}.train.json",
        "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{code}.dev.json",
    ),
    "hub": ("secondary_task/train-00000-of-00001.parquet", "secondary_task/validation-00000-of-00001.parquet"),
    "XTREME on the hub": ("tydiqa/train-00000-of-00001.parquet", "tydiqa/validation-00000-of-00001.parquet"),
}


@pytest.mark.parametrize("title", PATHS)
def test_tydiqa_is_read_in_other_layouts(tmp_path, title):
    for split, pattern in zip(("train", "validation"), PATHS[title], strict=True):
        for code in QA_CODES:
            path = tmp_path / "other" / pattern.format(code=code, name=QA_NAMES[code])
            folders.write(path, qa_rows(code, split) if "{" in pattern else mixed(split))
    assert items(QA, tmp_path / "other", QA_CODES) == items(QA, qa_flat(tmp_path / "flat"), QA_CODES)


def test_a_file_with_several_languages_is_not_believed_by_its_name(tmp_path):
    for code in QA_CODES:
        for split, name in (("train", "train"), ("validation", "dev")):
            folders.write(tmp_path / "mixed" / f"{code}.{name}.json", mixed(split))
    assert items(QA, tmp_path / "mixed", QA_CODES) == items(QA, qa_flat(tmp_path / "flat"), QA_CODES)
    folders.write(tmp_path / "wrong" / "sw.dev.json", qa_rows("te", "validation"))
    with pytest.raises(OptionError, match=r"sw.dev.json item telugu--0-0: no id begins with swahili-, but with telugu"):
        QA.load("sw", "test", data_dir=str(tmp_path / "wrong"))


def test_a_language_without_training_questions_is_only_scored(tmp_path):
    folders.write(tmp_path / "tydiqa-goldp-v1.1-train.json", mixed("train", ("en", "sw")))
    folders.write(tmp_path / "tydiqa-goldp-v1.1-dev.json", mixed("validation"))
    assert [len(QA.load("te", split, data_dir=str(tmp_path))) for split in ("train", "validation", "test")] == [
        0,
        0,
        30,
    ]


@pytest.mark.parametrize(("task", "split"), [(XNLI, "test"), (QA, "train")])
def test_a_folder_that_fits_no_layout_is_told_what_it_has(tmp_path, task, split):
    (tmp_path / "test_en.tsv").write_text(json.dumps([]))
    with pytest.raises(OptionError) as caught:
        task.load("en", "test", data_dir=str(tmp_path))
    assert "file in en; expected a name such as " in str(caught.value)
    assert "; it has test_en.tsv" in str(caught.value)
