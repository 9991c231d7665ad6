"""Where the data of declared tasks may be: files a language or a split, one file for all, the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from declaring import QUESTIONS, declared, reviews, squad, write, write_all

from whichlora.errors import OptionError

LANGUAGES, SPLITS = ("de", "tr"), ("train", "test")
NAMES = {"de": "deu_Latn", "tr": "tur_Latn"}


def check(task, data_dir: Path | None = None) -> None:
    """Check that a task has the reviews of `write_all`."""
    folder = str(data_dir) if data_dir else None
    for language in LANGUAGES:
        items = task().load(language, "test", data_dir=folder)
        assert [item.id for item in items] == [f"test-{n}" for n in range(6)]
        assert all(f"{language} test" in dict(item.fields)["text"] for item in items)
        train = [
            *task().load(language, "train", data_dir=folder),
            *task().load(language, "validation", data_dir=folder),
        ]
        assert sorted(item.id for item in train) == [f"train-{n}" for n in range(6)]


@pytest.mark.parametrize(
    "pattern",
    [
        "{split}-{lang}.csv",
        "{lang}.{split}.tsv",
        "{name}/{split}.tsv",
        "{split}/{lang}.jsonl",
        "{lang}/{split}-00000-of-00001.parquet",
        "a b/[{lang}] {split}.csv",
    ],
)
def test_files_are_found_by_their_patterns(tmp_path, pattern):
    for language in LANGUAGES:
        for split in SPLITS:
            place = pattern.format(split=split, lang=language, name=NAMES[language])
            write(tmp_path / place, reviews(language, split))
    of = {split: pattern.replace("{split}", split) for split in SPLITS}
    check(declared(tmp_path, languages=NAMES, data=of))
    check(declared(tmp_path, languages=NAMES, data=dict.fromkeys(SPLITS, pattern), task="filled"))
    if "parquet" in pattern:
        check(declared(tmp_path, languages=NAMES, data={s: f"{{lang}}/{s}-*.parquet" for s in SPLITS}, task="shards"))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_one_file_may_have_all_languages_and_splits(tmp_path, ending):
    rows = [
        row | {"language": NAMES[language], "part": {"train": "tr", "test": "te"}[split]}
        for split in SPLITS
        for pair in zip(reviews("de", split), reviews("tr", split), strict=True)
        for language, row in zip(LANGUAGES, pair, strict=True)
    ]
    name = f"all.{ending}"
    write(tmp_path / name, rows)
    task = declared(
        tmp_path,
        languages=NAMES,
        data={"train": name, "test": name, "splits": {"train": "tr", "test": "te"}},
        where={"language": "{name}", "part": "{split}"},
    )
    check(task)


def test_a_split_may_have_another_name_in_the_names_of_files(tmp_path):
    for language in LANGUAGES:
        for split, name in (("train", "training"), ("test", "eval")):
            write(tmp_path / name / f"{language}.csv", reviews(language, split))
    data = dict.fromkeys(SPLITS, "{split}/{lang}.csv") | {"splits": {"train": "training", "test": "eval"}}
    check(declared(tmp_path, data=data))


def test_a_condition_may_be_on_a_column_by_number(tmp_path):
    rows = [row | {"language": language} for language in LANGUAGES for row in reviews(language, "test")]
    write(tmp_path / "all.tsv", rows, header=False)
    task = declared(tmp_path, data={"test": "all.tsv"}, fields={"id": 1, "text": 2, "answer": 3}, where={"4": "{lang}"})
    assert "tr test" in dict(task().load("tr", "test")[0].fields)["text"]


def questions(language: str, name: str) -> dict[str, object]:
    """Return a question whose id begins with the language's name."""
    return {"id": f"{name}--12-0", "question": f"{language}?", "answers": [{"text": "Ali", "answer_start": 0}]}


def test_a_file_with_several_languages_is_divided_by_its_ids(tmp_path):
    names = {"de": "german", "tr": "turkish"}
    document = squad(*(questions(code, name) for code, name in names.items()), context="Ali left.")
    for file in ("all.json", "de.json", "tr.json"):  # the two by language have both languages, in spite of their names
        (tmp_path / file).write_text(json.dumps(document))
    for pattern in ("all.json", "{lang}.json"):
        changes = {"languages": names, "data": {"test": pattern}, "id_prefix": "{name}-"}
        task = declared(tmp_path, QUESTIONS, task=f"q{len(pattern)}", **changes)
        for language in names:
            (item,) = task().load(language, "test")
            assert item.question == f"{language}?"


def test_a_training_file_of_a_language_without_its_ids_is_an_error(tmp_path):
    names = {"de": "german", "tr": "turkish"}
    for split, code, name in (("train", "tr", "tr"), ("test", "tr", "turkish"), ("test", "de", "german")):
        document = squad(questions(code, name), context="Ali left.")
        (tmp_path / f"{split}-{code}.json").write_text(json.dumps(document))
    data = {"train": "train-{lang}.json", "test": "test-{lang}.json"}
    task = declared(tmp_path, QUESTIONS, languages=names, data=data, id_prefix="{name}-")
    assert len(task().load("tr", "test")) == 1
    with pytest.raises(OptionError, match=r"train-tr\.json has no items in tr; no id begins with 'turkish-'"):
        task().load("tr", "train")


def test_a_file_a_language_needs_no_column_that_says_the_language(tmp_path):
    write_all(tmp_path)
    check(declared(tmp_path, where={"language": "{lang}"}))


def test_data_without_splits_is_divided_by_group_and_in_parallel(tmp_path):
    for language in LANGUAGES:
        rows = [row | {"product": f"p{n // 4}"} for n, row in enumerate(reviews(language, "all", 80))]
        write(tmp_path / f"{language}.csv", rows)
    task = declared(tmp_path, data={"all": "{lang}.csv"}, parallel=True, group="product")
    found = {}
    for language in LANGUAGES:
        parts = {split: task().load(language, split) for split in ("train", "validation", "test")}
        assert sorted(item.id for part in parts.values() for item in part) == sorted(f"all-{n}" for n in range(80))
        products = [{int(item.id[4:]) // 4 for item in part} for part in parts.values()]
        assert sum(map(len, products)) == len(set.union(*products)) == 20
        assert len(parts["test"]) == 24
        found[language] = {split: [(item.index, item.id) for item in part] for split, part in parts.items()}
    assert found["de"] == found["tr"]
    whole = declared(tmp_path, data={"all": "{lang}.csv"}, task="ungrouped", test_share=0.25)
    assert len(whole().load("de", "test")) == 20


def test_the_first_layout_with_the_right_columns_is_taken(tmp_path):
    layouts = [
        {"train": "none-train.csv", "test": "none.csv"},
        {"train": "train-{lang}.csv", "test": "test-{lang}.csv", "fields": {"id": "nr", "text": "t", "answer": "a"}},
        {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
    ]
    write_all(tmp_path)
    check(declared(tmp_path, data=layouts))
    other = tmp_path / "other"
    for language in LANGUAGES:
        for split in SPLITS:
            rows = [{"t": r["review"], "a": r["stars"], "nr": r["id"]} for r in reviews(language, split)]
            write(other / f"{split}-{language}.csv", rows)
    check(declared(tmp_path, data=layouts), other)


def test_conditions_of_a_layout_replace_those_of_the_task(tmp_path):
    write_all(tmp_path)
    data = {"train": "train-{lang}.csv", "test": "test-{lang}.csv", "where": {}}
    check(declared(tmp_path, data=data, where={"verified": "yes"}))


def test_nested_values_and_lists_are_reached_by_dots(tmp_path):
    rows = [{"meta": {"id": r["id"]}, "texts": ["x", r["review"]], "stars": r["stars"]} for r in reviews("de", "test")]
    for name in ("test.json", "test.parquet"):
        write(tmp_path / name, rows)
        changes = {"languages": ["de"], "source": None, "data": {"test": name}}
        task = declared(tmp_path, fields={"id": "meta.id", "text": "texts.1", "answer": "stars"}, **changes)
        assert [dict(item.fields)["text"] for item in task().load("de", "test")] == [
            r["review"] for r in reviews("de", "test")
        ]


def test_the_issue_example_of_group_and_stratify_names_columns(tmp_path):
    for language in LANGUAGES:
        for split in SPLITS:
            rows = [row | {"product": f"p{n // 4}"} for n, row in enumerate(reviews(language, split, 40))]
            write(tmp_path / f"{split}-{language}.csv", rows)
    task = declared(tmp_path, group="product", stratify="stars")
    train, held = (task().load("de", split) for split in ("train", "validation"))
    assert len(train) + len(held) == 40
    assert not {int(i.id[6:]) // 4 for i in train} & {int(i.id[6:]) // 4 for i in held}
    assert {item.stratum for item in train} == {"1 1", "2 2"}


@pytest.mark.parametrize(
    ("prepare", "changes", "message"),
    [
        (lambda folder: None, {}, "has none of test-de.csv; it has task.yaml"),
        (
            lambda folder: write_all(folder, "{split}_{lang}.csv"),
            {},
            "has none of test-de.csv; it has task.yaml, test_de.csv, test_tr.csv, train_de.csv, train_tr.csv "
            "(is test_de.csv meant to be test-de.csv?)",
        ),
        (
            lambda folder: write_all(folder, "sub/{lang}/{split}.csv"),
            {"data": {"test": "{lang}/test.csv"}},
            "(is sub/de/test.csv meant to be de/test.csv?)",
        ),
        (
            lambda folder: [write(folder / f"file-{n:02}.csv", reviews("de", "test")) for n in range(30)],
            {},
            "file-09.csv and 21 more",
        ),
        (
            lambda folder: (write_all(folder), (folder / "test-tr.csv").unlink()),
            {},
            "has no test-tr.csv for test in tr; it has",
        ),
        (
            lambda folder: (write_all(folder), [path.unlink() for path in folder.glob("train-*")]),
            {},
            "has no train-de.csv for train in de; it has",
        ),
        (
            write_all,
            {"fields": {"id": "id", "text": "reviw", "answer": "stars"}},
            "test-de.csv has no column 'reviw' for text; it has id, review, stars (did you mean 'review'?)",
        ),
        (write_all, {"group": "produkt"}, "test-de.csv has no column 'produkt'; it has id, review, stars"),
        (
            write_all,
            {"where": {"star": "1"}},
            "test-de.csv has no column 'star'; it has id, review, stars (did you mean 'stars'?)",
        ),
        (write_all, {"where": {"stars": "3"}}, "test-de.csv has no items in de; stars is 1, 2, not 3"),
        (write_all, {"id_prefix": "{lang}-"}, "no id begins with 'de-', the first is 'test-0'"),
        (
            write_all,
            {"labels": {"1": "bad", "3": "good"}},
            "3 of 6 rows cannot be used: test-de.csv line 3: label '2' is not declared; test-de.csv line 5: label",
        ),
        (
            write_all,
            {"fields": {"id": 1, "text": 2, "answer": 3}},
            "1 of 7 rows cannot be used: test-de.csv line 1: label 'stars' is not declared. If the first line is a "
            "header, name its columns in `fields`",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_the_nearest_name(tmp_path, prepare, changes, message):
    prepare(tmp_path)
    task = declared(tmp_path, **changes)
    with pytest.raises(OptionError) as caught:
        [task().load(language, split) for split in ("test", "train") for language in LANGUAGES]
    assert str(caught.value).startswith(f"data_dir={tmp_path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": "a.csv"}}, "data lacks test, or all for data without splits"),
        ({"data": {"all": "a.csv", "test": "a.csv"}}, "data has both all and a split"),
        ({"data": {"test": "{language}.csv"}}, "{language}.csv has {language}; allowed are {lang}, {name}, {split}"),
        ({"where": {"x": "{code}"}}, "{code} has {code}; allowed are {lang}"),
        ({"fields": {"id": "id", "text": 2, "answer": 3}}, "fields has both names and numbers"),
        ({"fields": {"text": 0, "answer": 3}}, "fields counts columns from 1"),
        ({"fields": {"text": "t", "answer": "a"}, "id_prefix": "x"}, "fields lacks id, which id_prefix needs"),
        ({"test_share": 0.5}, "test_share"),
        ({"data": {"train": "a.csv", "test": "a.csv"}}, "data has one file for two splits; say in where which rows"),
        ({"data": {"test": "a.csv", "format": "xlsx"}}, "data: format must be 'csv', 'tsv', 'json'"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_an_error_before_any_file(tmp_path, changes, message):
    with pytest.raises(OptionError) as caught:
        declared(tmp_path, **changes)
    assert message in str(caught.value)
    assert "task.yaml: line " in str(caught.value)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return the working directory, from which `datasets` reads local copies of the hub's layout."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def copy_of_hub(folder: Path, configs: tuple[str, ...], rows_of) -> None:
    lines = ["---", "configs:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {config}/{split}-*" for split in SPLITS]
        for split in SPLITS:
            write(folder / config / f"{split}-00000-of-00001.parquet", rows_of(config, split))
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def test_the_hub_has_a_config_a_language(hub, tmp_path_factory):
    copy_of_hub(hub / "org" / "reviews", LANGUAGES, reviews)
    folder = tmp_path_factory.mktemp("yaml")
    data = {"hub": "org/reviews", "config": "{lang}", "train": "train", "test": "test"}
    check(declared(folder, data=data))
    copy = shutil.move(hub / "org", hub / "elsewhere")
    check(declared(folder, data=data, task="copied"), copy / "reviews")


def test_the_hub_has_all_languages_in_one_config(hub, tmp_path_factory):
    both = lambda config, split: [row | {"lg": code} for code in LANGUAGES for row in reviews(code, split)]  # noqa: E731
    copy_of_hub(hub / "org" / "reviews", ("all",), both)
    data = {"hub": "org/reviews", "config": "all", "train": "train", "test": "test", "where": {"lg": "{lang}"}}
    check(declared(tmp_path_factory.mktemp("yaml"), data=data))


@pytest.mark.parametrize("labels", [{"neg": "bad", "pos": "good"}, {"0": "bad", "1": "good"}])
def test_labels_of_the_hub_are_names_or_numbers(hub, tmp_path_factory, labels):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(hub / "org" / "reviews" / "test-00000-of-00001.parquet")
    task = declared(
        tmp_path_factory.mktemp("yaml"),
        languages=["de"],
        source=None,
        data={"hub": "org/reviews", "test": "test"},
        fields={"text": "text", "answer": "label"},
        labels=labels,
    )
    negative, positive = labels
    assert [item.answers for item in task().load("de", "test")] == [(positive,), (negative,)]


def test_a_folder_that_is_no_copy_of_the_hub_is_told_what_it_has(tmp_path):
    task = declared(tmp_path, data={"hub": "org/missing", "test": "test"})
    with pytest.raises(OptionError, match=r"is not a copy of org/missing: it has no README.md .*; it has task.yaml"):
        task().load("de", "test", data_dir=str(tmp_path))


def test_a_column_a_language_is_reached_by_its_code(tmp_path):
    rows = [
        row | {f"review_{code}": f"{code} {n}" for code in LANGUAGES} for n, row in enumerate(reviews("de", "test"))
    ]
    write(tmp_path / "test.csv", rows)
    fields = {"id": "id", "text": "review_{lang}", "answer": "stars"}
    task = declared(tmp_path, data={"test": "test.csv"}, fields=fields, parallel=True)
    for code in LANGUAGES:
        assert [dict(item.fields)["text"] for item in task().load(code, "test")] == [f"{code} {n}" for n in range(6)]


def test_an_unreachable_hub_is_an_error_that_suggests_a_folder(hub, tmp_path_factory):
    task = declared(tmp_path_factory.mktemp("yaml"), data={"hub": "org/missing", "test": "test"})
    match = r"^data_dir=auto: org/missing cannot be read from the hub \(.*set data_dir to a folder"
    with pytest.raises(OptionError, match=match):
        task().load("de", "test")
