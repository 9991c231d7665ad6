"""The files of declared tasks: every format and dialect gives the same items, and a fault stays where it is."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random

import pytest
from declaring import QUESTIONS, REVIEWS, declared, reviews, squad, write, write_all

from whichlora.errors import OptionError

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")


def texts(task, language: str = "de", split: str = "test") -> list[tuple[str, str, tuple[str, ...]]]:
    return [(item.id, dict(item.fields)["text"], item.answers) for item in task().load(language, split)]


def expected(language: str = "de", split: str = "test") -> list[tuple[str, str, tuple[str, ...]]]:
    return [(row["id"], row["review"], (str(row["stars"]),)) for row in reviews(language, split)]


def only_test(folder, content: str | bytes, name: str = "test-de.csv", **changes):
    """Return a task with German test items alone, in a file with this content."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return declared(folder, languages=["de"], source=None, data={"test": name, **changes.pop("data", {})}, **changes)


@pytest.mark.parametrize("ending", [*FORMATS, *(f"{name}.gz" for name in FORMATS)])
def test_every_format_gives_the_same_items(tmp_path, ending):
    write_all(tmp_path, f"{{split}}-{{lang}}.{ending}")
    data = {"train": f"train-{{lang}}.{ending}", "test": f"test-{{lang}}.{ending.removesuffix('.gz')}"}
    task = declared(tmp_path, data=data)
    for language in ("de", "tr"):
        assert texts(task, language) == expected(language)
    held = task().load("de", "train") + task().load("de", "validation")
    assert sorted(item.id for item in held) == [row["id"] for row in reviews("de", "train")]


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("list", "test-de.jsonl"),
        ("data", "test-de.jsonl"),
        ("lines", "test-de.json"),
        ("one line", "test-de.jsonl"),
        ("lines", "test-de.json.gz"),
    ],
)
def test_the_content_tells_json_from_jsonl(tmp_path, lines, name):
    rows = reviews("de", "test", 1 if lines == "one line" else 6)
    content = {"list": json.dumps(rows), "data": json.dumps({"version": 1, "data": rows}, indent=1)}.get(
        lines, "\r\n".join(json.dumps(row) for row in rows)
    )
    raw = gzip.compress(content.encode(), mtime=0) if name.endswith(".gz") else content.encode()
    assert texts(only_test(tmp_path, raw, name)) == expected()[: len(rows)]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["test-de.csv", "test-de.tsv"])
def test_the_delimiter_is_told_by_the_header(tmp_path, sep, name):
    write(tmp_path / name, reviews("de", "test"), sep=sep)
    assert texts(only_test(tmp_path, (tmp_path / name).read_bytes(), name)) == expected()


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_a_file_without_a_header_has_columns_by_number(tmp_path, sep):
    write(tmp_path / "x.csv", reviews("de", "test"), header=False, sep=sep)
    task = only_test(tmp_path, (tmp_path / "x.csv").read_bytes(), fields={"id": 1, "text": 2, "answer": 3})
    assert texts(task) == expected()
    assert "without a header" in task.reader.describe(None)[0].files[0].form


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, end, start):
    write(tmp_path / "x.csv", reviews("de", "test"))
    content = (tmp_path / "x.csv").read_text().replace("\n", end)
    assert texts(only_test(tmp_path, start + content)) == expected()


def test_mixed_line_ends_and_blank_lines_do_not_matter(tmp_path):
    assert texts(only_test(tmp_path, "id,review,stars\r\n\r\na,b,1\nc,d,2\r\n\n")) == [
        ("a", "b", ("1",)),
        ("c", "d", ("2",)),
    ]


def test_utf_16_with_a_byte_order_mark_is_read(tmp_path):
    write(tmp_path / "x.csv", reviews("de", "test"), sep="\t")
    assert texts(only_test(tmp_path, (tmp_path / "x.csv").read_text().encode("utf-16"))) == expected()


WRITERS = {
    "quoted where needed": {"quoting": csv.QUOTE_MINIMAL},
    "all quoted": {"quoting": csv.QUOTE_ALL},
    "texts quoted": {"quoting": csv.QUOTE_NONNUMERIC},
}


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("style", WRITERS)
def test_whatever_csv_writes_is_read_back(tmp_path, delimiter, style):
    """Property: cells of delimiters, quotation marks, line ends and texts in several scripts."""
    pieces = [",", "\t", ";", '"', '""', "\n", "\r\n", "a", "é", "e\u0301", "क्\u200dष", "\u200fابجد", "\u2028", " "]
    for seed in range(20):
        rng = random.Random(seed)
        rows = [[f"i{n}", "x" + "".join(rng.choices(pieces, k=rng.randrange(12))), str(n % 2 + 1)] for n in range(8)]
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=delimiter, **WRITERS[style]).writerows([["id", "review", "stars"], *rows])
        task = only_test(tmp_path, buffer.getvalue(), f"test-{seed}-{ord(delimiter)}-{style.replace(' ', '')}.csv")
        assert texts(task) == [(i, text, (stars,)) for i, text, stars in rows]


@pytest.mark.parametrize(
    "mark", ['"Yes," he said.', 'He said "yes"', 'a lone " mark', '"begins alone', 'ends alone"', '"', '"a" and "b"']
)
def test_in_a_tsv_file_without_quoting_the_marks_are_text(tmp_path, mark):
    rows = [(f"i{n}", mark if n in (2, 5) else f'text {n} is 5" long', str(n % 2 + 1)) for n in range(8)]
    content = "".join("\t".join(row) + "\n" for row in [("id", "review", "stars"), *rows])
    task = only_test(tmp_path, content, "test-de.tsv")
    assert texts(task) == [(i, text, (stars,)) for i, text, stars in rows]
    assert "quotation marks are part of the text" in task.reader.describe(None)[0].files[0].form


def test_the_quoting_of_a_layout_overrides_what_the_content_tells(tmp_path):
    content = 'id\treview\tstars\na\t"yes"\t1\nb\t"no"\t2\n'
    told = only_test(tmp_path, content, "test-de.tsv")
    assert [text for _, text, _ in texts(told)] == ["yes", "no"]
    as_text = only_test(tmp_path, content, "test-de.tsv", data={"quoted": False})
    assert [text for _, text, _ in texts(as_text)] == ['"yes"', '"no"']


def test_the_format_of_a_layout_stands_for_a_suffix(tmp_path):
    content = json.dumps(reviews("de", "test"))
    assert texts(only_test(tmp_path, content, "test.data", data={"format": "json"})) == expected()
    with pytest.raises(OptionError, match=r"its suffix tells no format; set `format` to one of csv, tsv, json"):
        texts(only_test(tmp_path, content, "test.data"))


def test_a_lone_quotation_mark_costs_one_row_of_a_quoted_file(tmp_path):
    lines = [f'i{n},"well, {n}",{n % 2 + 1}' for n in range(50)]
    lines[20] = 'i20,"not closed,1'
    content = "\n".join(["id,review,stars", *lines])
    with pytest.raises(OptionError, match=r"1 of 50 rows cannot be used: test-de.csv line 22: has a quotation mark"):
        texts(only_test(tmp_path, content))
    with pytest.warns(UserWarning, match=r"1 of 50 rows in test-de.csv are left out: test-de.csv line 22"):
        assert len(texts(only_test(tmp_path, content, on_bad="skip"))) == 49


def test_a_cell_may_be_very_wide(tmp_path):
    wide = "x y" * 400_000
    assert texts(only_test(tmp_path, f'id,review,stars\na,"{wide}",1\nb,c,2\n'))[0][1] == wide


def test_shards_are_read_in_order_and_none_may_be_missing(tmp_path):
    rows = reviews("de", "test")
    for n in range(3):
        write(tmp_path / f"test-0000{n}-of-00003.parquet", rows[2 * n : 2 * n + 2])
    task = declared(tmp_path, languages=["de"], source=None, data={"test": "test-*.parquet"})
    assert texts(task) == expected()
    (tmp_path / "test-00001-of-00003.parquet").unlink()
    with pytest.raises(OptionError, match=r"has 2 of 3 files like test-00000-of-00003.parquet"):
        texts(declared(tmp_path, languages=["de"], source=None, data={"test": "test-*.parquet"}, task="other"))


def test_a_description_names_format_rows_and_digest_of_every_file(tmp_path):
    write_all(tmp_path)
    described = {(d.language, d.split): d for d in declared(tmp_path).reader.describe(None)}
    assert set(described) == {(language, split) for language in ("de", "tr") for split in ("train", "test")}
    (file,) = described["tr", "test"].files
    digest = hashlib.sha256((tmp_path / "test-tr.csv").read_bytes()).hexdigest()
    assert (file.name, file.rows, file.sha256) == ("test-tr.csv", 6, digest)
    assert file.form == "CSV with a header, separated by commas, quoted cells"
    assert (described["tr", "test"].items, described["tr", "test"].left_out) == (6, ())


def test_the_files_of_a_split_are_named_with_their_digests(tmp_path):
    write_all(tmp_path)
    task = declared(tmp_path)()
    for split, name in (("train", "train-tr.csv"), ("validation", "train-tr.csv"), ("test", "test-tr.csv")):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert task.origin("tr", split) == {str(tmp_path / name): digest}


HEAD = "id,review,stars\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", "", "test.csv has no items"),
        ("test.csv", HEAD, "test.csv has no items"),
        ("test.csv", HEAD + "a,b\n", "test.csv line 2: has 2 cells instead of 3"),
        ("test.csv", HEAD + "a,b,1\nb,c,2,d\n", "test.csv line 3: has 4 cells instead of 3"),
        ("test.csv", "id,review,stars,stars\na,b,1,2\n", "line 1: has the column stars twice"),
        ("test.csv", HEAD.encode() + "a,schön,1\n".encode("latin-1"), "test.csv line 2: text is not UTF-8; save"),
        ("test.csv", HEAD.replace("review", "räview").encode("latin-1") + b"a,b,1\n", "The file is not UTF-8; save it"),
        ("test.csv", (HEAD + "a,b\0c,1\n"), "test.csv line 2: text has a NUL character"),
        ("test.json", "{", "test.json line 1: cannot be read (Expecting"),
        ("test.json", '{"rows": []}', "test.json must be a list of records, or an object with one under data"),
        ("test.json", '"text"', "test.json must be a list of records"),
        ("test.json", "[1]", "test.json item 1: is not a JSON object"),
        ("test.json", '[{"id": 1, "review": "\\ud800", "stars": 1}]', "item 1: text has half of a surrogate pair"),
        ("test.jsonl", '{"id": 1, "review": "a", "stars": 1}\n{"id"\n', "test.jsonl line 2: is not JSON"),
        ("test.jsonl", "[" * 100_000, "test.jsonl"),
        ("test.jsonl", '{"id": 1, "review": "a", "stars": ' + "9" * 5000 + "}", "test.jsonl"),
        ("test.parquet", "text", "test.parquet cannot be read ("),
        ("test.tsv", "version https://git-lfs.github.com/spec/v1\noid x\n", "test.tsv is a pointer of Git LFS; fetch"),
        (
            "test.csv.gz",
            gzip.compress(HEAD.encode(), mtime=0)[:-6],
            "test.csv.gz cannot be read (the compressed file is",
        ),
        ("test.csv.gz", HEAD + "a,b,1\n", "test.csv.gz cannot be read (it is not compressed with gzip"),
    ],
)
def test_a_faulty_file_is_an_error_of_one_line(tmp_path, name, content, message):
    with pytest.raises(OptionError) as caught:
        texts(only_test(tmp_path, content, name))
    assert str(caught.value).startswith(f"data_dir={tmp_path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_squad_documents_are_read_as_questions_with_their_contexts(tmp_path):
    questions = [
        {"id": f"q{n}", "question": f"Who {n}?", "answers": [{"text": "Ali", "answer_start": 5}]} for n in (0, 1)
    ]
    (tmp_path / "test.json").write_text(json.dumps(squad(*questions, context="Then Ali left.")))
    items = declared(tmp_path, QUESTIONS)().load("de", "test")
    assert [(item.id, item.question, item.answers, item.answer_start) for item in items] == [
        ("q0", "Who 0?", ("Ali",), 5),
        ("q1", "Who 1?", ("Ali",), 5),
    ]


def test_reading_is_linear_in_lone_quotation_marks(tmp_path):
    lines = [f'i{n},"x,{n % 2 + 1}' if n % 3 else f'i{n},"a, b",1' for n in range(6000)]
    task = only_test(tmp_path, "\n".join(["id,review,stars", *lines]), on_bad="skip", **{"labels": REVIEWS["labels"]})
    with pytest.warns(UserWarning, match="are left out"):
        assert len(texts(task)) >= 1999
