"""`whichlora runs`: what is in the tracking database, as a table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wcwidth
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError
from whichlora.parallel.locks import exclusive
from whichlora.run_table import main
from whichlora.run_table.layout import as_table
from whichlora.run_table.listing import Query, search
from whichlora.tracking import client
from whichlora.tracking.lookup import find_run
from whichlora.tracking.runs import place, work_of

EVERYTHING = Query(experiment=None, kind=None, status=None, params={})
SCORES = {
    "test/en/f1": 0.9171234,
    "test/en/f1_low": 0.88,
    "test/en/f1_high": 0.94,
    "test/tl/f1": 0.5,
    "train/seconds": 163.0,
}


def logged(
    experiment: str = "e",
    *,
    kind: str = "run",
    status: str = "FINISHED",
    metrics: dict[str, float] = SCORES,
    tags: dict[str, str] | None = None,
    **params: str,
) -> str:
    """Log a run and return its id."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    run_id: str = client.create_run(number, run_name=f"{kind} of {experiment}").info.run_id
    known = {"variant": "lora", "arm": "matched", "task": "atlas-nli", "model": "smollm2-135m", "language": "sw"}
    known |= {"tl_ratio": "0.5", "seed": "1", "test_digests": '{"en": "a", "tl": "b"}', **params}
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, 0, 0) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in known.items()],
        tags=[RunTag(f"whichlora.{key}", value) for key, value in {"kind": kind, **(tags or {})}.items()],
    )
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return run_id


def called(capsys: pytest.CaptureFixture[str], **options: str) -> tuple[str, str]:
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def rows_of(capsys: pytest.CaptureFixture[str], **options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(called(capsys, form="json", **options)[0])
    return rows


def test_a_missing_database_is_said_and_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    for form, empty in (("table", ""), ("json", "[]\n"), ("csv", "run_id,name,")):
        out, err = called(capsys, form=form)
        assert out.startswith(empty)
        assert out.count("\n") == (form != "table")
        assert f"There is no tracking database {tmp_path / 'mlflow.db'}" in err
    assert not list(tmp_path.iterdir())


def test_an_empty_database_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = called(capsys)
    assert out == ""
    assert "There are no such runs." in err


def test_the_table_states_once_what_all_runs_share(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = logged(seed="1"), logged(seed="10", variant="vera")
    logged(kind="launch")
    title, head, *lines = called(capsys)[0].splitlines()
    assert title == "2 runs (2 finished); experiment e, task atlas-nli, model smollm2-135m, language sw, ratio 0.5"
    assert head.split() == [
        *("run", "method", "seed", "status"),
        *("F1", "en", "95", "%", "CI", "F1", "tl", "seconds", "started"),
    ]
    assert [line.split()[:6] for line in lines] == [
        [first[:6], "lora-matched", "1", "finished", "91.7", "88.0-94.0"],
        [second[:6], "vera-matched", "10", "finished", "91.7", "88.0-94.0"],
    ]


def test_summaries_show_seeds_and_standard_deviation(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"test/tl/f1": 0.25, "test/tl/f1_sd": 0.0625, "test/tl/f1_low": -0.125, "test/tl/f1_high": 0.625}
    logged(kind="summary", metrics={**scores, "seeds": 3.0}, seed="")
    logged()
    title, head, row = called(capsys, kind="summary")[0].splitlines()
    assert "kind summary" in title
    assert head.split()[:9] == ["run", "method", "seeds", "status", "F1", "tl", "SD", "95", "%"]
    assert re.split(r"\s{2,}", row.strip())[2:7] == ["3", "finished", "25.0", "6.2", "-12.5 to 62.5"]
    (record,) = rows_of(capsys, kind="summary")
    assert scores.items() | {("seeds", 3)} <= record.items()
    (run,) = rows_of(capsys)
    assert not {"seeds", "test/tl/f1_sd"} & run.keys()


def test_rows_are_in_the_order_of_numbers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("10", "9", "2"):
        logged(seed=seed)
    assert [row["seed"] for row in rows_of(capsys)] == ["2", "9", "10"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, 4),
        ({"experiment": "e"}, 3),
        ({"experiment": "e,other"}, 4),
        ({"method": "vera"}, 2),
        ({"method": "vera-tuned"}, 1),
        ({"method": "tuned"}, 0),
        ({"task": "it's"}, 1),
        ({"task": "both ' and \""}, 0),
        ({"language": "ur", "method": "lora"}, 1),
        ({"status": "failed"}, 1),
        ({"kind": "trial"}, 1),
        ({"kind": "all"}, 5),
        ({"limit": "2"}, 2),
    ],
)
def test_filters(store: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str], found: int) -> None:
    logged(variant="vera")
    logged(variant="vera", arm="tuned", task="it's")
    logged(language="ur", status="FAILED")
    logged("other")
    logged(kind="trial")
    assert len(rows_of(capsys, **options)) == found


@pytest.mark.parametrize(("language", "shown"), [("sw", "language sw"), ("", "no language")])
def test_without_a_result_the_logged_values_are_named(
    store: Path, capsys: pytest.CaptureFixture[str], language: str, shown: str
) -> None:
    logged(variant="vera", language=language)
    assert f"Logged values: variant vera; {shown}." in called(capsys, method="veraa", language="swa")[1]


@pytest.mark.parametrize(
    ("option", "value"), [("status", "done"), ("kind", "runs"), ("form", "xml"), ("limit", "0"), ("experiment", "nix")]
)
def test_bad_values_end_in_status_2(store: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert main([f"--{option}", value]) == 2
    assert f"error: {option}={value}: " in capsys.readouterr().err


def test_csv_and_json_hold_the_logged_digits_under_the_names_of_metrics(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = logged()
    (row,) = csv.DictReader(io.StringIO(called(capsys, form="csv")[0]))
    (record,) = rows_of(capsys)
    for key, value in SCORES.items():
        assert float(row[key]) == record[key] == value
    assert row["run_id"] == record["run_id"] == run_id
    assert row["started"] == record["started"]


def test_the_headline_metric_of_the_task_counts(store: Path) -> None:
    logged(headline="rouge_l", metrics={"test/tl/rouge_l": 0.3, "test/tl/f1": 0.2}, test_digests='{"tl": "b"}')
    logged(task="other")
    second, first = search(EVERYTHING, None).runs
    assert {title: (s.key, s.value) for title, s in first.scores.items()} == {
        "en": ("test/en/f1", SCORES["test/en/f1"]),
        "tl": ("test/tl/f1", 0.5),
    }
    assert {title: (s.metric, s.value) for title, s in second.scores.items()} == {"tl": ("ROUGE-L", 0.3)}
    assert "ROUGE-L" in as_table((second, first), width=None)


def test_of_a_run_without_a_result_the_reason_is_shown(store: Path) -> None:
    logged(status="FAILED", tags={"error": "OSError: [Errno 28]\nNo space left"}, seed="1")
    logged(status="KILLED", seed="2")
    logged(status="RUNNING", tags={"place": "elsewhere"}, seed="3")
    logged(status="RUNNING", tags={"place": place(), "training_fingerprint": "a" * 64}, seed="4")
    logged(status="RUNNING", tags={"place": place(), "training_fingerprint": "b" * 64}, seed="5")
    with exclusive(work_of("run", "b" * 64)):
        reasons = [run.reason for run in search(EVERYTHING, None).runs]
    assert reasons == [
        "OSError: [Errno 28] No space left",
        "ended without an error message",
        "started 0 s ago",
        "its process has ended; the same command resumes it",
        "started 0 s ago",
    ]


def test_several_pages_are_read_and_no_more_than_needed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {logged(seed=str(seed)) for seed in range(7)}
    monkeypatch.setattr(client, "_PAGE", 3)
    assert {run.run_id for run in search(EVERYTHING, None).runs} == ids
    for limit, more in ((6, True), (7, False), (8, False)):
        found = search(EVERYTHING, limit)
        assert (len(found.runs), found.more) == (min(limit, 7), more)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140])
def test_hostile_and_wide_names_stay_in_their_lines(store: Path, width: int) -> None:
    logged(
        model="模型/日本語の大きなモデル",
        task="a|b\n\x1b[31m",
        language="ur",
        status="FAILED",
        tags={"error": "x" * 500},
    )
    logged("مراجعات", model="hf/" + "m" * 200)
    title, *lines = as_table(search(EVERYTHING, None).runs, width=width).split("\n")
    assert len(lines) == 3
    assert max(map(wcwidth.width, lines)) <= width
    assert "\x1b" not in title + "".join(lines)


def test_a_run_is_found_by_the_beginning_of_its_id(store: Path) -> None:
    run_id = logged()
    assert find_run(MlflowClient(), "first", run_id[:6]).info.run_id == run_id
    for text in ("zzzz", run_id[:3], "x' or '1", "%%%%", run_id + "0", "f" * 32):
        with pytest.raises(OptionError, match=r"^first="):
            find_run(MlflowClient(), "first", text)
