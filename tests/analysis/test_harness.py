"""Results of lm-evaluation-harness are read from its own files, and checked against what it reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness_output import DATE, write_results

from analysis.runs import predictions, result_files
from analysis.runs.pull import pull
from whichlora.errors import OptionError

EN, SW, UR = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]
TASKS = {"xnli_en": EN, "xnli_sw": SW, "xnli_ur": UR}


def table(*lines: str, header: str = "samples,variant,tl_ratio,seed") -> Path:
    path = Path("map.csv")
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def problem(path: Path) -> str:
    """Return why the only line of a file cannot be used."""
    with pytest.raises(OptionError) as caught:
        result_files.read([path])
    return str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_adapter_has_a_result_in_each_language_and_one_in_english() -> None:
    write_results(Path("out"), TASKS)
    runs = pull(None, {}, result_files.read([table("out,lora,0.5,1")]))
    found = {(row["outcome"], row["language"]): row for row in runs.table.to_dict("records")}
    assert {key: row["f1"] for key, row in found.items()} == {("en", ""): 0.75, ("tl", "sw"): 0.5, ("tl", "ur"): 0.25}
    assert runs.design.adapters == 1
    row = found["tl", "sw"]
    assert (row["task"], row["model"], row["seed"], row["tl_ratio"]) == ("xnli", "base", 1, 0.5)
    assert row["scoring"] == "lm-evaluation-harness acc, 0-shot"
    items, issues = predictions.fetch(runs.table, known=runs.answers)
    assert not issues
    sw = items[items["language"] == "sw"]
    assert sw["correct"].tolist() == SW
    assert sw["predicted"].tolist() == ["1", "2", "2", "0"]
    assert set(items["id"]) == {f"xnli-{i}" for i in range(4)}  # an item is one in all its translations
    assert set(runs.design.files) == {
        "map.csv",
        *(f"out/adapters__lora-1/{name}_{DATE}.jsonl" for name in ("samples_xnli_en", "samples_xnli_sw")),
        f"out/adapters__lora-1/samples_xnli_ur_{DATE}.jsonl",
        f"out/adapters__lora-1/results_{DATE}.json",
    }


@pytest.mark.parametrize("model_args", ["pretrained=org/base,peft=lora", {"pretrained": "org/base", "peft": "lora"}])
def test_the_model_is_the_base_of_the_adapter(model_args: Any) -> None:
    write_results(Path("out"), TASKS, model_args=model_args)
    (row, _) = result_files.read([table("out/lora,lora,0.5,1")]).rows
    assert row["model"] == "org/base"


def test_names_of_tasks_and_the_metric_may_be_given() -> None:
    tasks = {"copa": EN, "xcopa_sw": SW, "nli_en": EN, "nli_swh_Latn": SW, "qa_sw_prompt_1": UR}
    write_results(Path("out"), tasks)
    header = "samples,variant,tl_ratio,seed,samples_en,samples_tl,language,task,metric"
    lines = (
        "out,lora,0,1,copa,xcopa_sw,,,acc",
        "out,lora,0,1,,,,nli,",
        'out,lora,0,1,nli_en,qa_sw_prompt_1,sw,qa,"acc,none"',
    )
    rows = result_files.read([table(*lines, header=header)]).rows
    found = [(row["task"], row["language"], row["test/en/f1"], row["test/tl/f1"], row["defects"]) for row in rows]
    assert found == [
        ("xcopa", "sw", 0.75, 0.5, ""),
        ("nli", "swh_Latn", 0.75, 0.5, ""),
        ("qa", "sw", 0.75, 0.25, ""),
    ]


def test_newer_results_replace_older_ones() -> None:
    write_results(Path("out"), {"xnli_en": EN, "xnli_sw": UR}, date="2025-01-01T00-00-00")
    write_results(Path("out"), {"xnli_sw": SW}, results={"n-shot": {"xnli_sw": 5}})
    files = result_files.read([table("out,lora,0.5,1")])
    assert files.rows[0]["test/tl/f1"] == 0.5
    assert files.rows[0]["scoring"] == "lm-evaluation-harness acc, 0 and 5-shot"
    assert any("samples_xnli_sw_2025-01-01T00-00-00.jsonl" in note for note in files.notes)


def test_items_with_other_texts_are_other_items() -> None:
    write_results(Path("out"), TASKS, model_args={"pretrained": "m", "peft": "a"})
    other = write_results(Path("out"), TASKS, model_args={"pretrained": "m", "peft": "b"})
    samples = other / f"samples_xnli_sw_{DATE}.jsonl"
    first, rest = samples.read_text().split("\n", 1)
    samples.write_text(json.dumps({**json.loads(first), "doc_hash": "0" * 64}) + "\n" + rest)
    files = result_files.read([table("out/a,lora,0.5,1", "out/b,vera,0.5,1")])
    ids = files.answers["map.csv:3:xnli_sw", "tl"].ids.to_pylist()
    assert ids == ["xnli-0-00000000", "xnli-1", "xnli-2", "xnli-3"]


def test_written_answers_have_the_text_and_the_score() -> None:
    tasks = {"qa_en": [1.0, 0.5], "qa_sw": [0.0, 0.25]}
    write_results(Path("out"), tasks, metric="f1", kind="first_line")
    files = result_files.read([table("out,lora,0.5,1")])
    answers = files.answers["map.csv:2:qa_sw", "tl"]
    assert answers.predicted.to_pylist() == ["Dodoma", "Dar"]
    assert answers.scores[0].tolist() == [0.0, 0.25]
    assert files.rows[0]["scoring"] == "lm-evaluation-harness f1, first_line, 0-shot"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "none,lora,0.5,1", "samples=none: is no folder"),
    ({"tasks": {"xnli_en": EN}}, "out,lora,0.5,1", "has no pair of tasks named TASK_en and TASK_LANGUAGE, but xnli_en"),
    ({"tasks": {"xnli_sw": SW, "arc_easy": SW}}, "out,lora,0.5,1", "has no pair of tasks named TASK_en and"),
    ({"metric": "brier"}, "out,lora,0.5,1", "has no metric acc, f1, exact_match from 0 to 1 in each item: both"),
    ({"tasks": {"xnli_en": EN, "xnli_sw": [71.0]}}, "out,lora,0.5,1", "the two tasks have none in common"),
    ({"results": {"n-samples": {"xnli_sw": {"effective": 5}}}}, "out,lora,0.5,1", "has 4 items, but 5 were scored"),
    (
        {"results": {"results": {"xnli_sw": {"acc,none": 0.9}}}},
        "out,lora,0.5,1",
        "has a mean acc,none of 0.5000, but the results say 0.9000",
    ),
    ({"results": {"config": {}}}, "out,lora,0.5,1", "lacks model"),
    ({}, "out,,0.5,1", "lacks variant"),
    ({}, "out,lora,50,1", "tl_ratio=50: must be a number from 0 to 1; divide percents by 100"),
]


@pytest.mark.parametrize(("options", "line", "says"), BAD)
def test_a_folder_that_cannot_be_used_says_why(options: dict[str, Any], line: str, says: str) -> None:
    write_results(Path("out"), **{"tasks": {"xnli_en": EN, "xnli_sw": SW}, **options})
    text = problem(table(line))
    assert text.startswith("results=map.csv: no line can be used (line 2: ")
    assert says in text


def test_several_models_or_filters_must_be_named() -> None:
    for name in ("a", "b"):
        write_results(Path("out"), TASKS, model_args={"pretrained": "m", "peft": name})
    assert "samples=out: has results of several models, of which one line names one: a, b" in problem(
        table("out,lora,0.5,1")
    )
    assert "with lines such as out/a,lora,0.5,1" in problem(Path("out"))
    for name in ("xnli_en", "xnli_sw"):
        samples = Path("out/a") / f"samples_{name}_{DATE}.jsonl"
        samples.write_text(samples.read_text() + samples.read_text().replace('"none"', '"strict"'))
    header = "samples,variant,tl_ratio,seed,language,metric"
    text = problem(table("out/a,lora,0.5,1,sw,", header=header))
    assert "has several filters: give one of acc,none and acc,strict as metric" in text
    files = result_files.read([table('out/a,lora,0.5,1,sw,"acc,strict"', header=header)])
    assert files.rows[0]["scoring"] == "lm-evaluation-harness acc, strict, 0-shot"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1 is no JSON object"),
        ("[1]", "line 1 is no JSON object"),
        ("\xff", "cannot be read"),
        ("", "the two tasks have none in common"),
        ('{"doc_id": 1, "acc": 1}\n{"doc_id": 1, "acc": 0}', "has an item twice for acc,none"),
        ('{"doc_id": 1, "acc": NaN}', "the two tasks have none in common"),
        ('{"doc_id": 1, "metrics": 3, "filtered_resps": {"a": 1}}', "the two tasks have none in common"),
    ],
)
def test_damaged_samples_are_left_out(content: str, says: str) -> None:
    folder = write_results(Path("out"), {"xnli_en": EN, "xnli_sw": SW})
    (folder / f"samples_xnli_sw_{DATE}.jsonl").write_bytes(content.encode("latin-1"))
    text = problem(table("out,lora,0.5,1"))
    assert "samples=out: " in text
    assert says in text


def test_a_folder_is_of_one_adapter() -> None:
    write_results(Path("out"), TASKS)
    text = problem(table("out,lora,0.5,1", "out/adapters__lora-1/,vera,0.5,1"))
    assert "which map.csv:2:xnli_sw and map.csv:3:xnli_sw say was trained in different ways" in text
