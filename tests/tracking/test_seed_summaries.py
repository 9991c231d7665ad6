"""Runs that differ in their seed alone have one summary, whatever finishes when, and do not depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from runs import plan_of, run_of
from scipy import stats

from analysis.runs.pull import find_experiments, pull
from whichlora.config.plan import Plan
from whichlora.experiment.grid import Grid
from whichlora.experiment.progress import survey_runs
from whichlora.run import seed_summary
from whichlora.run.provenance import log_provenance
from whichlora.tracking.client import connect, find_experiment
from whichlora.tracking.runs import Tracker

PARENT = "mlflow.parentRunId"


def summaries(client: MlflowClient) -> list[Run]:
    number = find_experiment(client, "tests").experiment_id  # type: ignore[union-attr]
    return list(client.search_runs([number], "tags.`whichlora.kind` = 'summary'"))


def finish(plan: Plan, score: float, **tags: str) -> Run:
    """Log a finished run of a plan, without training, and without a summary."""
    tracker = Tracker(connect(), "tests")
    log = tracker.open("run", plan.name, {"fingerprint": plan.spec.fingerprint, **tags})
    log_provenance(plan, log)
    names = [f"{part}/{role}/f1" for part in ("test", "base") for role in ("en", "tl")]
    log.metrics(dict.fromkeys(names, score) | {"gain/en": 0.0, "gain/tl": 0.0, "train/seconds": 3.0})
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
    assert f"**{mean:.3f}**" in note
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
    runs = {plan.spec.fingerprint: finish(plan, 0.5) for plan in plans}
    seed_summary.mend(plans, tracker, dict(list(runs.items())[:1]))
    assert summaries(tracker.client) == []
    seed_summary.mend(plans, tracker, runs)
    (summary,) = summaries(tracker.client)
    assert summary.data.metrics["seeds"] == 3
    # After runs were deleted, a summary of one run that is left is too.
    for run in list(runs.values())[1:]:
        tracker.client.delete_run(run.info.run_id)
    seed_summary.update(plans[0], tracker, next(iter(runs.values())).info.run_id)
    assert summaries(tracker.client) == []
    assert capsys.readouterr().err == ""


def test_a_lost_server_loses_no_result(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tiny_model)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seed_summary.update(plan, Tracker(MlflowClient("http://127.0.0.1:9"), "tests"), "a" * 32)
    assert "warning: the summary of lora sw 0.5 over seeds is not up to date" in capsys.readouterr().err
