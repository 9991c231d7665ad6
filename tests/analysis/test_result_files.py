"""Results in CSV files are read, checked line by line, and analysed alone or together with runs from MLflow."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from harness_output import write_results
from synthetic import log_design

from analysis import analyze
from analysis.runs import result_files
from analysis.runs.pull import pull
from whichlora.errors import OptionError
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments

HEADER = "variant,task,model,language,tl_ratio,seed,en,tl"
LINE = "lora,xnli,llama,sw,0.5,1,0.7,0.6"
METHODS = {"lora": 0.0, "dora": 0.001, "vera": -0.15}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    mlflow.set_tracking_uri(before)


def write(*lines: str, header: str = HEADER, name: str = "theirs.csv") -> Path:
    path = Path(name)
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path


def rows(*lines: str, header: str = HEADER) -> list[dict[str, object]]:
    return list(result_files.read([write(*lines, header=header)]).rows)


def design(columns: str = "", **more: str) -> list[str]:
    """Return a line for each cell of a full design; `more` are the values of further columns by their names."""
    lines = []
    random = np.random.default_rng(3)
    for variant, effect in METHODS.items():
        for language in ("sw", "ur"):
            for ratio in (0, 0.5):
                for seed in (1, 2, 3):
                    en, tl = (base + effect + 0.005 * random.standard_normal() for base in (0.8, 0.6))
                    en = 0.8 + effect + 0.002 * seed if ratio == 0 else en
                    cells = [variant, "xnli", "llama", language, ratio, seed, f"{en:.4f}", f"{tl:.4f}", *more.values()]
                    lines.append(",".join(map(str, cells)))
    return lines


def report(*arguments: str) -> tuple[str, str]:
    """Analyse; return the text of the page without figures, and that of its first screen."""
    assert analyze.main([*arguments, "--output", "out"]) == 0
    page = (Path("out") / "report.html").read_text()
    page = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    return text, text.partition(" Scores Tests ")[0]


def test_the_needed_columns_alone_give_a_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    path = write(*design())
    text, first = report("--results", "theirs.csv")
    assert "36 runs with 27 adapters: 3 methods, 2 target languages, 2 ratios, 3 seeds." in first
    assert "DoRA = LoRA > VeRA" in first.replace("&gt;", ">")
    assert "All results are from theirs.csv: data, prompts, training and tuning are not verified." in first
    assert "9 of the results at ratio 0 name no adapter" in text
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"theirs.csv (SHA-256 {digest[:16]}) has 36 results from elsewhere." in text
    assert json.loads(Path("out/sources.json").read_text())["files"] == {"theirs.csv": digest}
    told = pd.read_csv("out/results.csv")
    assert len(told) == 36 + 27
    assert "unspecified" in first
    assert not Path("mlflow.db").exists()  # no tracking database is needed
    printed = capsys.readouterr().out
    assert "All results are from theirs.csv" in printed


def test_the_results_of_a_report_can_be_analysed_again() -> None:
    write(*design())
    report("--results", "theirs.csv")
    again = result_files.read([Path("out/results.csv")])
    first, second = (pull(None, {}, files).table for files in (result_files.read([Path("theirs.csv")]), again))
    keys = ["method", "language", "tl_ratio", "seed", "outcome", "f1"]
    assert first[keys].equals(second[keys])
    assert list(first["adapter"]) == list(second["adapter"])


def test_optional_columns_have_their_effect() -> None:
    header = f"{HEADER},arm,rank,learning_rate,parameters,seconds,gpu_memory_mb,adapter,base/en/f1,floor/tl/overlap"
    lines = [f"{LINE},tuned,8,2e-3,1000,60,900,a,0.3,0.5", f"{LINE},tuned,16,2e-3,2000,70,950,b,0.3,0.5"]
    runs = pull(None, {}, result_files.read([write(*lines, header=header)]))
    tl = runs.table[runs.table["outcome"] == "tl"].set_index("method")
    assert list(tl.index) == ["LoRA, rank 16", "LoRA, rank 8"]
    row = tl.loc["LoRA, rank 8"]
    assert row["adapter/trainable_parameters"] == 1000
    assert (row["train/seconds"], row["gpu/memory_max_mb"], row["adapter"]) == (60, 900, "a")
    assert (row["arm"], row["learning_rate"], row["floor/tl/overlap"]) == ("tuned", 0.002, 0.5)
    assert not any("not read" in note for note in runs.design.notes)


BAD_LINES = [
    ("lora,xnli,llama,sw,0.5,1,71.2,0.6", "en=71.2: must be a number from 0 to 1; divide percents by 100"),
    ("lora,xnli,llama,sw,0.5,1,0.7,-0.1", "tl=-0.1: must be a number from 0 to 1"),
    ("lora,xnli,llama,sw,0.5,1,0.7,1e308", "tl=1e308: must be a number from 0 to 1"),
    ("lora,xnli,llama,sw,0.5,1,nan,0.6", "en=nan: must be a number from 0 to 1"),
    ("lora,xnli,llama,sw,0.5,1,inf,0.6", "en=inf: must be a number from 0 to 1"),
    ('lora,xnli,llama,sw,0.5,1,"0,7",0.6', "en=0,7: must be a number"),
    ("lora,xnli,llama,sw,0.5,1,0.7,", "lacks tl (test/tl/f1)"),
    ("lora,xnli,llama,,0.5,1,0.7,0.6", "lacks language"),
    (",xnli,,sw,0.5,1,0.7,0.6", "lacks variant, model"),
    ("lora,xnli,llama,sw,50,1,0.7,0.6", "tl_ratio=50: must be a number from 0 to 1; divide percents by 100"),
    ("lora,xnli,llama,sw,half,1,0.7,0.6", "tl_ratio=half: must be a number"),
    ("lora,xnli,llama,sw,0.5,1.5,0.7,0.6", "seed=1.5: must be a whole number"),
    ("lora,xnli,llama,sw,0.5,inf,0.7,0.6", "seed=inf: must be a whole number"),
    ("lora,xnli,llama,sw,0.5,1e300,0.7,0.6", "has seed 1e+300, which is no whole number"),
    ("lora,xnli,llama,sw,0.5,first,70,0.6", "seed=first: must be a number; en=70: must be a number from 0 to 1"),
    ("lora,xnli,llama,sw,0.5,1,0.7", "has 7 values, but the header has 8"),
    ("lora,xnli,llama,sw,0.5,1,0.7,0.6,0.5", "has 9 values, but the header has 8"),
    ("lora,align-words,llama,sw,0.5,1,0.7,0.6", "task=align-words: results on word pairs are read from MLflow only"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES)
def test_a_bad_line_is_left_out_with_its_reason(line: str, says: str) -> None:
    good, bad = rows(LINE, line)
    assert not good["defects"]
    assert str(bad["defects"]).startswith(says)
    found = pull(None, {}, result_files.read([Path("theirs.csv")])).design
    assert [(issue.name, issue.run_id) for issue in found.incomplete] == [("theirs.csv line 3", "theirs.csv:3")]
    assert found.used == ("theirs.csv:2",)
    with pytest.raises(OptionError, match=re.escape(f"no line can be used (line 2: {says}")):
        rows(line)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("rank", "eight", "rank=eight: must be a number"),
        ("learning_rate", "inf", "learning_rate=inf: must be a finite number"),
        ("seconds", "1e308", "has train/seconds 1e+308, which is no measured value"),
        ("test/tl/macro_f1", "nan", "has test/tl/macro_f1 nan"),
        ("floor/en/overlap", "40", "has floor/en/overlap 40, which is not between 0 and 1"),
        ("base/tl/f1", "x", "base/tl/f1=x: must be a number"),
    ],
)
def test_a_bad_optional_value_is_one_too(column: str, value: str, says: str) -> None:
    _, bad = rows(f"{LINE},", f"{LINE},{value}".replace(",1,", ",2,"), header=f"{HEADER},{column}")
    assert bad["defects"] == says


def test_values_that_nothing_depends_on_may_be_missing() -> None:
    header = f"{HEADER},rank,seconds,target_modules,version/peft"
    (row,) = rows(f"{LINE},,nan,,0.21", header=header)
    assert not row["defects"]
    assert math.isnan(row["rank"])  # type: ignore[arg-type]
    assert row["version/peft"] == "0.21"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no header"),
        ("\n", "has no header"),
        (HEADER, "has no results below its header"),
        (f"{HEADER}\n\n ,,,\n", "has no results below its header"),
        ("variant,task\nlora,xnli", "lacks the columns model, language, tl_ratio, seed, en, tl (needed: variant, task"),
        (f"{HEADER},tl\n{LINE},0.6", "has the column tl twice"),
        (f"{HEADER},test/tl/f1\n{LINE},0.6", "has the column test/tl/f1 twice, as tl"),
        (f"{HEADER}\n{LINE}".replace(",", ";"), "the columns must be separated by commas"),
        (f"{HEADER}\n{LINE}".replace(",", "\t"), "the columns must be separated by commas"),
        (f'{HEADER}\n"lora,xnli', "line 2 is no CSV: unexpected end of data"),
        (f"{HEADER}\n{LINE}".replace("seed", "seeds"), "lacks the columns seed"),
        ("samples,variant\nx,lora", "lacks the columns tl_ratio, seed (needed: variant, tl_ratio, seed, samples; it"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_command(
    content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("theirs.csv").write_text(content)
    assert analyze.main(["--results", "theirs.csv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: results=theirs.csv: {says}")
    assert error.count("\n") == 1
    assert not Path("report").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "experiment=none: give an experiment, or results, or both"),
        (["--results", "no.csv"], "results=no.csv: must be a CSV file"),
        (["--results", "theirs.csv,"], "results=theirs.csv,: has an empty value; must be a CSV file"),
        (["--results", "empty"], "results=empty: is a folder; give a CSV file with the columns samples,variant"),
        (["--results", "binary.csv"], "results=binary.csv: must be a CSV file in UTF-8"),
        (["--results", "theirs.csv", "--experiment", "e"], "experiment=e: there is no tracking database"),
    ],
)
def test_bad_options_end_the_command(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(LINE)
    Path("empty").mkdir()
    Path("binary.csv").write_bytes(b"\xff\xfe\x00")
    assert analyze.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_files_as_spreadsheets_write_them_are_read() -> None:
    Path("theirs.csv").write_bytes(f"\ufeff{HEADER},,\r\n{LINE},,\r\n,,,,,,,,,\r\n\r\n".encode())
    (row,) = result_files.read([Path("theirs.csv")]).rows
    assert (row["variant"], row["run_id"]) == ("lora", "theirs.csv:2")


def test_repeated_lines_count_once_and_contradicting_ones_not_at_all() -> None:
    other = LINE.replace(",1,", ",2,")
    files = result_files.read([write(LINE, LINE, other, other.replace("0.6", "0.5"), LINE.replace("lora", "vera"))])
    assert [(issue.run_id, issue.text) for issue in files.duplicates] == [("theirs.csv:3", "repeats theirs.csv:2")]
    assert [(row["run_id"], row["defects"]) for row in files.rows] == [
        ("theirs.csv:2", ""),
        ("theirs.csv:4", "has other scores than theirs.csv:5, which has the same values otherwise"),
        ("theirs.csv:5", "has other scores than theirs.csv:4, which has the same values otherwise"),
        ("theirs.csv:6", ""),
    ]
    copy = write(LINE, name="copy.csv")
    files = result_files.read([write(LINE), copy])
    assert [row["run_id"] for row in files.rows] == ["theirs.csv:2"]


def test_what_is_left_out_is_on_the_first_screen_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [*design(), "pissa,xnli,llama,hi,0.1,1,0.9,0.9", "lora,copa,llama,sw,0,1,0.5,0.5", "lora,xnli,llama,sw,0,4"]
    write(*lines, *(f"lora,xnli,llama,sw,0,{seed},80,60" for seed in (5, 6, 7)))
    _, first = report("--results", "theirs.csv")
    printed = capsys.readouterr().out
    for says in (
        "4 runs are left out, without a usable result: theirs.csv line 40 (has 6 values, but the header has 8); ",
        "theirs.csv line 41 (en=80: must be a number from 0 to 1; divide percents by 100; tl=60: must be a number",
        "; and 1 more.",
        "In copa, llama only LoRA has results: nothing is compared there.",
        "Not compared, because they share no cell of setting, language and ratio: DoRA, LoRA, VeRA; PiSSA.",
    ):
        assert says in first, says
        assert says in printed, says


def test_columns_without_a_meaning_are_named_and_have_no_effect() -> None:
    usual, read = ("run_id", "name", "status", "method", "setting", "f1", "defects"), ("comment", "leaning_rate")
    header, values = ",".join((HEADER, *usual, *read)), ",".join((LINE, *("x" for _ in (*usual, *read))))
    files = result_files.read([write(values, header=header)])
    assert f"Columns of theirs.csv that are not read: {', '.join(sorted((*usual, *read)))}." in files.notes
    assert files.rows == result_files.read([write(LINE)]).rows


def test_an_adapter_was_trained_in_one_way() -> None:
    header = f"{HEADER},adapter"
    lines = (f"{LINE},a", f"{LINE},a".replace(",sw,", ",ur,"), f"{LINE},b".replace(",1,", ",2,"))
    assert not any(row["defects"] for row in rows(*lines, header=header))
    *_, last = rows(*lines, f"{LINE},b".replace(",1,", ",3,"), header=header)
    assert "has the adapter b, which theirs.csv:4 and theirs.csv:5 say was trained in different ways" in str(
        last["defects"]
    )


@pytest.mark.slow
def test_files_and_experiments_are_in_one_report(store: Path) -> None:
    methods = [("lora", "matched"), ("vera", "matched")]
    log_design("e", methods=methods, seeds=(1, 2), ratios=(0.5,), items=12)
    client = connect()
    alone = pull(client, find_experiments(client, "e"))
    ours = alone.table[alone.table["outcome"] == "tl"].iloc[0]
    conditions = ("difficulty", "composition", "train_size", "validation_size", "test_size", "prompt_language")
    conditions += ("scoring", "precision", "quantization")  # type: ignore[assignment]
    cells = [
        f"dora,atlas-nli,smollm2-135m,{language},0.5,{seed},0.{seed}5,0.{seed}5,{{}}"
        for language in ("sw", "ur")
        for seed in (1, 2)
    ]
    header = ",".join((HEADER, *conditions))
    same = ",".join(str(ours[key]) for key in conditions)
    path = write(*(cell.format(same) for cell in cells), header=header)
    text, first = report("--experiment", "e", "--results", str(path))
    assert "12 runs with 12 adapters: 3 methods, 2 target languages, 1 ratio, 2 seeds." in first
    assert "4 of 12 results are from theirs.csv" in first
    assert "Which adapter? e, theirs.csv" in text
    (run,) = client.search_runs([find_experiments(client, "e")["e"]], "tags.`whichlora.kind` = 'report'")
    assert run.data.params["results"] == "theirs.csv"
    write(*(cell.format("," * (len(conditions) - 1)) for cell in cells), header=header)
    runs = pull(client, find_experiments(client, "e"), result_files.read([path]))
    assert "atlas-nli, smollm2-135m, other conditions not given" in set(runs.table["setting"])
    assert runs.design.groups == (("LoRA", "VeRA"), ("DoRA",))  # conditions that may differ are not compared


def test_lines_with_scores_and_with_samples_are_in_one_file() -> None:
    en, sw = [1.0] * 6 + [0.0] * 4, [1.0] * 5 + [0.0] * 5
    lines = [',lora,xnli,llama,sw,0.5,3,0.6,0.5,"lm-evaluation-harness acc, 0-shot"']
    for method, worse in (("lora", 0), ("vera", 3)):
        for seed in (1, 2):
            scores = {"xnli_en": [*en[worse:], *[0.0] * worse], "xnli_sw": [*sw[worse:], *[0.0] * worse]}
            write_results(Path("out"), scores, model_args={"pretrained": "hub/llama", "peft": f"{method}-{seed}"})
            lines.append(f"out/{method}-{seed},{method},,llama,,0.5,{seed},,,")
    header = "samples,variant,task,model,language,tl_ratio,seed,en,tl,scoring"
    write(*lines, "out/lora-1,pissa,,llama,,0.5,1,0.5,0.5,", header=header)
    text, first = report("--results", "theirs.csv")
    assert "samples=out/lora-1: is given together with en, which must be empty then" in first
    assert "McNemar" in text
    assert "Few test items (10 in the smallest test set)" in first
