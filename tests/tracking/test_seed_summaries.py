"""Runs that differ in their seed alone have one summary, whatever finishes when, and do not depend on it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from runs import PAIRS, plan_of, run_of
from scipy import stats

from analysis.runs.pull import pull
from whichlora.config.plan import Plan
from whichlora.experiment.grid import Grid
from whichlora.experiment.progress import survey_runs
from whichlora.run import seed_summary
from whichlora.run.provenance import log_provenance
from whichlora.tracking.client import connect, find_experiment
from whichlora.tracking.lookup import find_experiments
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker

PARENT = "mlflow.parentRunId"


def summaries(client: MlflowClient) -> list[Run]:
    number = find_experiment(client, "tests").experiment_id  # type: ignore[union-attr]
    return list(client.search_runs([number], "tags.`whichlora.kind` = 'summary'"))


def note(summary: Run) -> str:
    return str(summary.data.tags["mlflow.note.content"])


def finish(plan: Plan, score: float, *, more: Mapping[str, float] | None = None, **tags: str) -> Run:
    """Log a finished run of a plan, with `more` metrics, without training, and without a summary."""
    tracker = Tracker(connect(), "tests")
    log = tracker.open("run", plan.name, {"fingerprint": plan.spec.fingerprint, **tags})
    log_provenance(plan, log)
    names = [f"{part}/{role}/f1" for part in ("test", "base") for role in ("en", "tl")]
    log.metrics(dict.fromkeys(names, score) | {"gain/en": 0.0, "gain/tl": 0.0, "train/seconds": 3.0, **(more or {})})
    tracker.client.set_terminated(log.run_id, "FINISHED")
    return tracker.client.get_run(log.run_id)


def test_statistics_are_those_of_scipy() -> None:
    values = [0.5, 0.625, 0.55]
    runs: list[Mapping[str, float]] = [
        {"test/tl/f1": v, "test/tl/f1_low": 0.1, "train/seconds": 2.0, "train/loss": 1.0, "test/en/f1": 0.4}
        for v in values
    ]
    runs[2] = {k: v for k, v in runs[2].items() if k != "test/en/f1"}  # not in all runs, so not summarised
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    expected = {
        "test/tl/f1": np.mean(values),
        "test/tl/f1_sd": np.std(values, ddof=1),
        "test/tl/f1_low": low,
        "test/tl/f1_high": high,
        "train/seconds": 2.0,
        "seeds": 3.0,
    }
    assert seed_summary.statistics(runs, "f1") == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_the_second_seed_brings_a_summary(store: Path, tiny_model: str) -> None:
    plans = [plan_of(tiny_model, seed=seed) for seed in (1, 2)]
    results = [run_of(plan) for plan in plans[:1]]
    client = connect()
    assert summaries(client) == []
    results += [run_of(plan) for plan in plans[1:]]
    (summary,) = summaries(client)
    runs = [client.get_run(result.run_id) for result in results]
    assert {run.data.tags[PARENT] for run in runs} == {summary.info.run_id}
    assert summary.info.status == "FINISHED"
    mean = np.mean([run.data.metrics["test/tl/f1"] for run in runs])
    assert summary.data.metrics["test/tl/f1"] == pytest.approx(mean)
    assert summary.data.metrics["seeds"] == 2
    assert summary.data.params["variant"] == "lora"
    assert "seed" not in summary.data.params
    note = summary.data.tags["mlflow.note.content"]
    assert f"**{100 * mean:.1f}**" in note
    assert all(run.info.run_id in note for run in runs)
    assert summary.info.run_name.startswith("lora sw 0.5 mean ")
    # Readers of runs do not see it.
    pulled = pull(client, find_experiments(client, "tests"))
    assert sorted(set(pulled.table["run_id"])) == sorted(run.info.run_id for run in runs)
    survey = survey_runs(Grid(name="tests", about="", plans=plans), Tracker(client, "tests"))
    assert (len(survey.done), survey.others) == (2, 0)
    # A run that is done already mends what a kill has left undone.
    client.delete_run(summary.info.run_id)
    assert run_of(plans[0]).run_id == results[0].run_id
    (again,) = summaries(client)
    assert again.data.metrics == summary.data.metrics
    assert {client.get_run(run.info.run_id).data.tags[PARENT] for run in runs} == {again.info.run_id}


@pytest.mark.slow
def test_cells_and_parents_of_others_stay_apart(store: Path, tiny_model: str) -> None:
    client = connect()
    for options in ({}, {"tl_ratio": 0}, {"language": "ur", "tl_ratio": 0}, {"rank": 4}):
        for seed in (1, 2):
            parent = {"study": "s"} if seed == 1 and not options else {}
            run = finish(plan_of(tiny_model, seed=seed, **options), 0.5, **parent)
            if parent:
                client.set_tag(run.info.run_id, PARENT, "that of a study")
                kept = run.info.run_id
            seed_summary.update(plan_of(tiny_model, seed=seed, **options), Tracker(client, "tests"), run.info.run_id)
    assert len(summaries(client)) == 4
    assert {run.data.metrics["seeds"] for run in summaries(client)} == {2}
    assert client.get_run(kept).data.tags[PARENT] == "that of a study"


def test_many_finish_at_once(store: Path, tiny_model: str) -> None:
    plans = [plan_of(tiny_model, seed=seed) for seed in range(5)]
    runs = [finish(plan, plan.spec.seed / 10) for plan in plans]

    def update(index: int) -> None:
        seed_summary.update(plans[index], Tracker(MlflowClient(), "tests"), runs[index].info.run_id)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(update, range(5)))
    client = connect()
    (summary,) = summaries(client)
    assert summary.data.metrics["seeds"] == 5
    assert summary.data.metrics["test/en/f1"] == pytest.approx(0.2)
    assert {client.get_run(run.info.run_id).data.tags[PARENT] for run in runs} == {summary.info.run_id}


def test_an_experiment_mends_summaries(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    plans = [plan_of(tiny_model, seed=seed) for seed in (1, 2, 3)]
    tracker = Tracker(connect(), "tests")
    runs = {plans[0].spec.fingerprint: finish(plans[0], 0.5)}
    seed_summary.mend(plans, tracker, runs)
    assert summaries(tracker.client) == []
    runs |= {plan.spec.fingerprint: finish(plan, 0.5) for plan in plans[1:]}
    seed_summary.mend(plans, tracker, runs)
    (summary,) = summaries(tracker.client)
    assert summary.data.metrics["seeds"] == 3
    # After runs were deleted, a summary of one run that is left is too.
    for run in list(runs.values())[1:]:
        tracker.client.delete_run(run.info.run_id)
    seed_summary.update(plans[0], tracker, next(iter(runs.values())).info.run_id)
    assert summaries(tracker.client) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["status", "description", "parents", "metrics", "deleted run", "other metrics"])
def test_an_experiment_mends_what_a_kill_or_a_deletion_left(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    plans = [plan_of(tiny_model, seed=seed) for seed in (1, 2, 3)]
    tracker = Tracker(connect(), "tests")
    runs = {plan.spec.fingerprint: finish(plan, plan.spec.seed / 10) for plan in plans}
    seed_summary.mend(plans, tracker, runs)
    (intact,) = summaries(tracker.client)
    number, left = intact.info.run_id, list(runs.values())
    if damage == "status":
        tracker.client.update_run(number, status="RUNNING")
    elif damage == "description":
        tracker.client.delete_tag(number, "mlflow.note.content")
    elif damage == "parents":
        tracker.client.delete_tag(left[0].info.run_id, PARENT)
    elif damage == "metrics":
        tracker.client.log_metric(number, "test/tl/f1", 0.9, step=0, timestamp=2**42)
    elif damage == "other metrics":
        tracker.client.log_metric(number, "test/of/earlier", 0.9)
    else:
        tracker.client.delete_run(left.pop().info.run_id)
    done = {fingerprint: run for fingerprint, run in runs.items() if run in left}
    seed_summary.mend(plans, tracker, done)
    (mended,) = summaries(tracker.client)
    assert mended.info.status == "FINISHED"
    expected = seed_summary.statistics([run.data.metrics for run in left], "f1")
    assert mended.data.metrics == expected
    assert mended.data.tags["mlflow.note.content"].count("[seed ") == len(left)
    children = [tracker.client.get_run(run.info.run_id) for run in left]
    assert {run.data.tags[PARENT] for run in children} == {mended.info.run_id}
    assert (mended.info.run_id == number) == (damage != "other metrics")
    changed = mended.info.end_time
    seed_summary.mend(plans, tracker, done)  # which now has nothing to do
    assert [summary.info.end_time for summary in summaries(tracker.client)] == [changed]
    assert capsys.readouterr().err == ""


def test_a_metric_that_a_later_seed_lacks_is_not_kept(store: Path, tiny_model: str) -> None:
    plans, client = [plan_of(tiny_model, seed=seed) for seed in (1, 2, 3)], connect()
    for plan in plans:
        more = {} if plan.spec.seed == 3 else {"floor/tl/majority": 0.25}
        run = finish(plan, 0.5, more=more)
        seed_summary.update(plan, Tracker(client, "tests"), run.info.run_id)
        if plan.spec.seed == 2:
            assert summaries(client)[0].data.metrics["floor/tl/majority"] == 0.25
    (summary,) = summaries(client)
    assert summary.data.metrics["seeds"] == 3
    assert "floor/tl/majority" not in summary.data.metrics
    assert {run.data.tags[PARENT] for run in map(client.get_run, re.findall(r"[0-9a-f]{32}", note(summary)))} == {
        summary.info.run_id
    }


def test_changed_test_items_are_another_cell(store: Path, tiny_model: str) -> None:
    client = connect()
    for seed in (1, 2, 3, 4):
        plan = plan_of(tiny_model, seed=seed)
        if seed > 2:
            digests = dict(plan.spec.test_digests, tl="changed")
            plan = replace(plan, spec=replace(plan.spec, test_digests=digests))
        run = finish(plan, seed / 10)
        seed_summary.update(plan, Tracker(client, "tests"), run.info.run_id)
    assert sorted(s.data.metrics["test/tl/f1"] for s in summaries(client)) == pytest.approx([0.15, 0.35])
    assert {s.data.metrics["seeds"] for s in summaries(client)} == {2}


@pytest.mark.parametrize("options", [{"retention": "atlas-qa", "retention_size": 4}, PAIRS])
def test_test_items_do_not_follow_the_seed(tiny_model: str, options: Mapping[str, str]) -> None:
    one, other = (plan_of(tiny_model, seed=seed, **options).spec.test_digests for seed in (1, 2))
    assert {name for name in one if one[name] != other[name]} <= {"trained"}  # the training pairs
    assert len(one) > 1


def test_changes_of_others_without_end_are_reported(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = [plan_of(tiny_model, seed=seed) for seed in (1, 2)]
    runs = [finish(plan, 0.5) for plan in plans]
    describe, later = RunLog.describe, itertools.count(2**42, 1000)

    def describe_and_change(log: RunLog, text: str) -> None:
        describe(log, text)
        log.client.log_metric(log.run_id, "seeds", 7.0, timestamp=next(later))

    monkeypatch.setattr(RunLog, "describe", describe_and_change)
    seed_summary.update(plans[0], Tracker(connect(), "tests"), runs[0].info.run_id)
    assert "is not up to date: other processes changed it at the same time" in capsys.readouterr().err


def test_a_lost_server_loses_no_result(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tiny_model)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seed_summary.update(plan, Tracker(MlflowClient("http://127.0.0.1:9"), "tests"), "a" * 32)
    assert "warning: the summary of lora sw 0.5 over seeds is not up to date" in capsys.readouterr().err
