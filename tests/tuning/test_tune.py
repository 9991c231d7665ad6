"""Studies with real small trainings: budgets, resuming, links to MLflow, pruning, failures and final runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from safetensors.torch import load_file
from small_studies import FEW, call, runs, study

from tuning import finalists, report, retries
from tuning.optuna_study import Study
from tuning.pipeline import tune
from tuning.retries import ATTEMPTS
from tuning.study import main as listing
from tuning.study_config import FRESH_SEEDS, TUNING_SEED
from tuning.study_status import connect
from tuning.tune import OPTIONS, main, study_configs
from whichlora.experiment.grid import read_grid
from whichlora.tracking.client import connect as connect_tracking
from whichlora.tracking.runs import Tracker
from whichlora.training import multi_adapter, trainer


def test_a_study_and_its_trials_are_linked_both_ways(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(options) == 0
    (parent,) = runs("study")
    found = study(options)
    trials = found.counted()
    assert len(trials) == 3
    children = {run.info.run_id: run for run in runs("trial")}
    for trial in trials:
        run = children[trial.user_attrs["run_id"]]
        assert run.data.tags["whichlora.trial"] == str(trial.number)
        assert run.data.tags["whichlora.study"] == found.name == parent.data.params["study"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id == found.run_id
        assert run.data.params["arm"] == "tuned"
        assert run.data.params["seed"] == str(trial.user_attrs["seed"])
        f1 = [run.data.metrics[f"validation/{role}/f1"] for role in ("en", "tl")]
        assert trial.value == pytest.approx(sum(f1) / 2)
        assert not any(name.startswith("test/") for name in run.data.metrics)  # test items are not scored
    assert trials[0].user_attrs["known"] == "matched"
    assert trials[0].params == found.config.known_points["matched"]

    fresh = [run for run in children.values() if run.data.tags["whichlora.trial"].startswith("fresh")]
    assert {int(run.data.params["seed"]) for run in fresh} == set(FRESH_SEEDS)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials/complete"] == 3
    assert 0 <= parent.data.metrics["best/fresh_f1"] <= 1
    artifacts = {Path(file.path).name for file in MlflowClient().list_artifacts(parent.info.run_id, "study")}
    assert {"trials.csv", "curve.csv", "learning_rates.csv", "best.yaml", "history.png"} <= artifacts
    printed = capsys.readouterr().out
    assert "| lora | 3 | 0 |" in printed
    assert f"Best of 3 trials of {found.name}:\n" in printed
    assert re.search(r"\n  whichlora run --variant lora --arm (tuned|recommended) --model .*  # the best\n", printed)
    page = parent.data.tags["mlflow.note.content"]
    assert all(text in page for text in ("| lora | 3 | 0 |", "arm: tuned", "This resumes it:"))
    assert all("| validation items |" in run.data.tags["mlflow.note.content"] for run in children.values())
    assert f"{found.name}: 0 of 3 trials\n" in printed
    assert re.search(rf"{found.name}: 2 of 3 trials, about \d+ s left\n", printed)
    assert f"{found.name}: 3 of 3 trials\n" in printed
    assert f"finalists with fresh seeds, {len(fresh)} runs to do" in printed
    assert printed.count(f"fresh seed {FRESH_SEEDS[0]}: F1 ") == len(fresh) / len(FRESH_SEEDS)


@pytest.mark.slow
def test_packed_trials_train_together_and_are_the_budget(
    options: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    taken = multi_adapter.backward_together
    monkeypatch.setattr(
        multi_adapter, "backward_together", lambda batches: (sizes.append(len(batches)), taken(batches))[1]
    )
    assert call(options, variant="lora,adalora", pack=3, trials=2, final="true", seed="1,2,3") == 0
    assert 3 in sizes
    assert set(sizes) <= {2, 3}
    printed = capsys.readouterr().out
    for variant in ("lora", "adalora"):
        found = study(options, variant=variant)
        assert len(found.counted()) == 2
        assert all(t.user_attrs["seconds"] > 0 for t in found.counted())
        assert f"| {variant} | 2 |" in printed
    assert {run.info.status for run in (*runs("trial"), *runs("run"))} == {"FINISHED"}
    assert len(runs("run")) == 6
    assert all(run.data.metrics["train/packed"] == 3 for run in runs("run"))


def test_trials_that_cannot_be_packed_are_refused_before_anything_is_created(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(options, variant="lora,pissa", pack=2) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: pack=2: must be 1 with pissa-tuned")
    assert "changes the base weights" in error
    assert call(options, objective="mean,seconds", pack=2) == 2
    assert "must be 1 with seconds as a cost" in capsys.readouterr().err
    assert runs("study") == []


@pytest.mark.slow
def test_the_matched_values_are_scored_again_even_if_they_are_not_among_the_best(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalists, "N_BEST", 0)  # so that they are not among the best
    assert call(options) == 0
    found = study(options)
    matched, recommended = finalists.finalists(found)
    assert (matched.origin, recommended.origin) == ("matched", "recommended")
    assert matched.point == found.config.known_points["matched"]
    assert matched.tuned == found.counted()[0].value
    assert len(matched.fresh) == len(recommended.fresh) == len(FRESH_SEEDS)


@pytest.mark.slow
def test_a_finished_study_is_reused_and_extended_by_a_larger_number(options: dict[str, str]) -> None:
    assert call(options) == 0
    before = {run.info.run_id for run in runs("trial")}
    assert call(options) == 0
    assert {run.info.run_id for run in runs("trial")} == before
    assert call(options, trials=4) == 0
    assert len(study(options).counted()) == 4
    assert len(runs("study")) == 1
    assert len(study(options, objective="en").counted()) == 0  # unlike trials never mix


@pytest.mark.slow
def test_a_resumed_study_ends_like_an_uninterrupted_one(options: dict[str, str], tmp_path: Path) -> None:
    assert call(options, trials=5, pruner="none") == 0
    whole = [(t.params, t.value, t.user_attrs["seed"]) for t in study(options, pruner="none").counted()]
    (tmp_path / "optuna.db").unlink()  # MLflow's runs stay, but belong to trials that are repeated
    for trials in (2, 3, 5):
        assert call(options, trials=trials, pruner="none") == 0
    assert [(t.params, t.value, t.user_attrs["seed"]) for t in study(options, pruner="none").counted()] == whole


@pytest.mark.slow
def test_a_repeated_point_is_trained_with_another_seed(options: dict[str, str], store: Path) -> None:
    (store / "space.yaml").write_text("learning_rate: [2e-3]\nrank: [8]\nalpha: [16]\ntarget_modules: [all-linear]\n")
    assert call(options) == 0
    trials = study(options).counted()
    assert [t.user_attrs["seed"] for t in trials] == [TUNING_SEED + n for n in range(3)]
    assert len({t.user_attrs["run_id"] for t in trials}) == 3


def test_a_pruned_trial_counts_and_is_marked(options: dict[str, str]) -> None:
    opened = study(options)
    opened.optuna.pruner = optuna.pruners.ThresholdPruner(lower=2.0)  # no F1 reaches it
    assert opened.step(limit=1, allow_new=True) == "worked"
    assert opened.step(limit=1, allow_new=True) == "finished"
    (trial,) = opened.counted()
    assert trial.state is TrialState.PRUNED
    assert list(trial.intermediate_values) == [1]  # it ended before the second
    (run,) = runs("trial")
    assert run.info.status == "FINISHED"
    assert run.data.tags["whichlora.pruned"].startswith("after report 1 with")
    assert trial.user_attrs["run_id"] == run.info.run_id
    client = MlflowClient()
    assert [m.step for m in client.get_metric_history(run.info.run_id, "validation/f1")] == [1]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1]
    for name in ("train/seconds", "host/cpu_mean", "host/memory_max_mb", "system/process_memory_usage_megabytes"):
        assert run.data.metrics[name] >= 0
    saved = client.download_artifacts(run.info.run_id, "adapter")  # as it was then
    weights = load_file(Path(saved) / "adapter_model.safetensors")
    assert sum(w.numel() for w in weights.values()) == run.data.metrics["adapter/trainable_parameters"]
    assert any(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)
    assert not list(Path("whichlora-work").glob("trial-*/"))


@pytest.mark.slow
def test_reports_do_not_change_the_training(options: dict[str, str]) -> None:
    assert call(options, trials=1, reports=2) == 0
    assert call(options, trials=1, reports=1) == 0
    losses = [
        [(m.step, m.value) for m in MlflowClient().get_metric_history(run.info.run_id, "train/loss")]
        for run in runs("trial")
        if run.data.tags["whichlora.trial"] == "0"
    ]
    assert len(losses) == 2
    assert losses[0] == losses[1] != []


@pytest.mark.slow
def test_every_variant_gets_the_same_budget_in_turn(options: dict[str, str]) -> None:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options | {"variant": "lora,vera,dora"}
    tracker = Tracker(connect_tracking(), "whichlora")
    studies = [Study(config, tracker, connect(), command="") for config in study_configs(texts)]
    counts = []

    class Watched(Study):
        def step(self, **arguments: Any) -> Any:
            counts.append([len(study.counted()) for study in studies])
            return super().step(**arguments)

    for opened in studies:
        opened.__class__ = Watched
    table, missing = tune(studies, tracker, trials=2)
    assert not missing
    assert [len(study.counted()) for study in studies] == [2, 2, 2]
    assert max(max(c) - min(c) for c in counts) == 1  # whenever it is interrupted
    assert [line.split(" | ")[1] for line in table.splitlines()[2:5]] == ["2", "2", "2"]


def test_seconds_of_a_retried_trial_count_once(options: dict[str, str]) -> None:
    opened = study(options)
    trial = opened.optuna.ask()
    trial.set_user_attr("seconds", 100.0)
    opened.optuna.tell(trial, state=TrialState.FAIL)
    assert opened.n_started() == 1  # it is to be retried
    assert opened.step(limit=1, allow_new=False) == "worked"
    assert [t.state for t in opened.counted()] == [TrialState.COMPLETE]
    assert 100 < opened.seconds() < 150


def test_a_known_point_whose_worker_died_is_retried_although_another_was_enqueued_too(
    options: dict[str, str],
) -> None:
    """Workers that open a study at once both enqueue the known points."""
    opened = study(options)
    opened.optuna.enqueue_trial(opened.config.known_points["matched"], {"known": "matched"})
    first = opened.optuna.ask()
    opened.optuna.tell(first, state=TrialState.FAIL)  # as for a worker that died
    steps = [opened.step(limit=2, allow_new=True) for _ in range(4)]
    assert steps == ["worked"] * 3 + ["finished"]
    twin, retried, other = opened.trials()[1:]
    assert (twin.state, twin.user_attrs["error"]) == (TrialState.FAIL, "two workers began with the matched point")
    assert (retried.state, retries.original_number(retried), retried.user_attrs["known"]) == (
        TrialState.COMPLETE,
        0,
        "matched",
    )
    assert (other.state, retries.original_number(other)) == (TrialState.COMPLETE, other.number)


@pytest.mark.slow
def test_several_workers_run_the_trials_of_one_study(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}:{root}")
    assert call(options, trials=5, workers=2, final="true", seed="1,2") == 0
    found = study(options).counted()
    assert len(found) == 5
    workers = {str(t.user_attrs["worker"]).rsplit("/", 2)[1] for t in found}
    assert 1 <= len(workers) <= 2
    assert str(os.getpid()) not in workers
    assert sorted(run.data.params["seed"] for run in runs("run")) == ["1", "2"]
    printed = capfd.readouterr().out
    assert printed.count("| lora | 5 |") == 1  # printed once, by this process
    assert "--workers" not in study(options).optuna.user_attrs["command"]


@pytest.mark.slow
def test_a_budget_in_seconds_ends_each_study(options: dict[str, str]) -> None:
    assert call(options, budget=1, trials=50) == 0
    found = study(options)
    assert 1 <= len(found.counted()) < 50
    assert found.seconds() >= 1
    before = len(found.counted())
    assert call(options, budget=1, trials=50) == 0
    assert len(found.counted()) == before


def test_a_timeout_and_a_stop_begin_no_more_trials(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    opened = study(options)
    assert opened.step(limit=3, allow_new=False) == "finished"
    assert opened.step(limit=3, allow_new=True) == "worked"
    assert listing(["stop", opened.name]) == 0
    assert opened.step(limit=3, allow_new=True) == "finished"
    assert len(opened.counted()) == 1
    time.sleep(0.01)
    assert study(options).step(limit=3, allow_new=True) == "worked"  # another call resumes it
    assert listing(["stop", "lora/nothing"]) == 2
    assert "study=lora/nothing: allowed are lora/folder-" in capsys.readouterr().err


def test_the_listing_shows_which_trials_have_lost_their_worker(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    opened = study(options)
    begin = f"""
import os, optuna, sys
from tuning.study_status import PREFIX, connect
from whichlora.scheduling.leases import Leases
study = optuna.load_study(study_name=PREFIX + {opened.name!r}, storage=connect())
Leases(study, print).acquire(study.ask())
print("begun", flush=True)
sys.stdin.read()
"""
    ends, env = subprocess.PIPE, os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", begin], stdin=ends, stdout=ends, text=True, env=env) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        assert listing(["status"]) == 0
        alive = capsys.readouterr().out
        worker.kill()
    assert ": 1 running" in alive
    assert "worker died" not in alive
    assert listing(["status"]) == 0
    assert "trials whose worker died: 0 (resumed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_listing_shows_trials_best_value_and_how_to_resume(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing(["status"]) == 0
    assert "There are no studies." in capsys.readouterr().out
    assert call(options) == 0
    capsys.readouterr()
    assert listing(["status"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^lora/folder-\w{8}/atlas-nli/sw/\w{12}: 3 complete$", printed, re.MULTILINE)
    assert re.search(r"best: \d+\.\d points in trial", printed)
    command = re.search(r"resume: python -m tuning.tune (.*)", printed)[1]  # type: ignore[index]
    assert main([*command.split(), "--trials", "3"]) == 0
    assert len(study(options).counted()) == 3


@pytest.mark.slow
def test_a_failing_point_is_retried_and_then_abandoned(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(trainer, "prove_trained", refuse)
        assert call(options) == 1
    assert "every trial failed in this process, the last with RuntimeError: the disk is full" in capsys.readouterr().err
    found = study(options)
    failed = found.trials(TrialState.FAIL)
    assert len(failed) == 2 * ATTEMPTS
    assert all("the disk is full" in trial.user_attrs["error"] for trial in failed)
    assert {run.info.status for run in runs("trial")} == {"FAILED"}
    assert len(runs("trial")) == 2  # a second attempt resumes the first's run
    assert runs("study")[0].info.status == "FAILED"
    assert call(options) == 0
    assert len(found.counted()) == 3


def test_a_worker_whose_trials_all_fail_leaves_the_study_to_others(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = study(options), study(options)
    assert whole.step(limit=20, allow_new=True) == "worked"
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "prove_trained", lambda *arguments: 1 / 0)
        outcomes = [broken.step(limit=20, allow_new=True) for _ in range(2 * ATTEMPTS + 1)]
    assert outcomes == ["worked"] * 2 * ATTEMPTS + ["finished"]
    assert "ZeroDivisionError" in str(broken.problem)
    assert whole.problem is None
    assert whole.step(limit=20, allow_new=True) == "worked"


@pytest.mark.parametrize("matched", [True, False], ids=["matched", "recommended"])
def test_the_best_point_is_written_with_the_options_that_were_set(options: dict[str, str], matched: bool) -> None:
    given = study(options, layers="first:1", quantization="nf4", epochs="2")
    points = given.config.known_points
    best = finalists.Finalist(origin="trial 0", point=points["matched"])
    if not matched:
        best = finalists.Finalist(origin="recommended", point=points["recommended"])
    (arm,) = yaml.safe_load(report.arm_yaml(given, best))
    plan = best.plan(given.config, 1)
    assert (arm["arm"], arm["layers"], arm["quantization"]) == (plan.spec.arm, "first:1", "nf4")
    assert (arm["epochs"], arm["batch_size"]) == (2, 8)
    assert ("rank" in arm) == matched


def test_a_study_that_ends_before_the_fresh_seeds_says_how_to_resume(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    opened = study(options)
    assert opened.step(limit=1, allow_new=True) == "worked"
    table, missing = tune([opened], opened.tracker, trials=1, deadline=time.monotonic() - 1)
    assert missing == []
    assert "no best point yet, fresh seeds are missing for trial 0" in capsys.readouterr().out
    assert table.splitlines()[2].endswith("| - |")


def test_a_pruner_is_refused_with_two_objectives(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(options, objective="mean,parameters", pruner="median") == 2
    assert "must be auto or none with objective=mean,parameters: " in capsys.readouterr().err


@pytest.mark.slow
def test_two_objectives_give_a_pareto_front(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(options, objective="tl,parameters") == 0
    found = study(options, objective="tl,parameters")
    for trial in found.counted():
        run = MlflowClient().get_run(trial.user_attrs["run_id"])
        assert trial.values == [
            run.data.metrics["validation/tl/f1"],
            run.data.metrics["adapter/trainable_parameters"],
        ]
    assert listing(["status"]) == 0
    assert "on the Pareto front" in capsys.readouterr().out


@pytest.mark.slow
def test_tuning_on_a_language_that_is_not_trained_on_scores_it_too(options: dict[str, str]) -> None:
    assert call(options, tl_ratio=0, objective="mean") == 0
    for run in (run for run in runs("trial") if not run.data.tags["whichlora.trial"].startswith("fresh")):
        assert run.data.params["select_on"] == "en"
        assert {"validation/en/f1", "validation/tl/f1"} <= run.data.metrics.keys()


@pytest.mark.slow
def test_the_best_point_is_trained_with_the_final_seeds_and_fits_an_experiment(
    options: dict[str, str], store: Path, tiny_model: str
) -> None:
    assert call(options, final="true", seed="1,2") == 0
    found = runs("run")
    assert sorted(run.data.params["seed"] for run in found) == ["1", "2"]
    for run in found:
        assert run.data.tags["whichlora.study"] == study(options).name
        assert run.data.params["arm"] in ("tuned", "recommended")
        assert "test/tl/f1" in run.data.metrics
    (parent,) = runs("study")
    path = MlflowClient().download_artifacts(parent.info.run_id, "study/best.yaml", str(store))
    (arm,) = yaml.safe_load(Path(path).read_text())
    assert arm["arm"] == found[0].data.params["arm"]
    defaults = {"model": tiny_model, "seed": [1, 2], **FEW}
    del defaults["reports"]
    (store / "tuned.yaml").write_text(yaml.safe_dump({"name": "whichlora", "defaults": defaults, "arms": [arm]}))
    grid = read_grid(str(store / "tuned.yaml"))
    assert {p.spec.fingerprint for p in grid.plans} == {run.data.tags["whichlora.fingerprint"] for run in found}


BAD = [
    ("variant", "lorra", "allowed are lora,"),
    ("variant", "none", "allowed are lora,"),
    ("objective", "meen", "allowed are en, tl, mean (did you mean 'mean'?)"),
    ("objective", "mean,dollars", "allowed are parameters, seconds"),
    ("objective", "en,seconds,parameters", "must be a language and at most one cost"),
    ("trials", "0", "must be a whole number from 1"),
    ("timeout", "soon", "must be a whole number from 1"),
    ("pruner", "medium", "allowed are auto, median, hyperband, none (did you mean 'median'?)"),
    ("space", "papr", "allowed are paper, continuous"),
    ("seed", "9000", "are used for tuning; choose another"),
    ("seed", "1,x", "must be a whole number"),
    ("final", "yes", "allowed are true, false"),
    ("language", "tlh", "allowed are"),
]


@pytest.mark.parametrize(("option", "value", "message"), BAD)
def test_bad_options_end_with_status_2(
    options: dict[str, str], option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(options, **{option: value}) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {option}=")
    assert message in printed
    assert not Path("optuna.db").exists()
