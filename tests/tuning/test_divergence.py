"""A trial that diverges counts as tried, with the worst value, and is never the best, averaged or repeated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from tuning import report
from tuning.divergence import converged, diverged, mark_diverged
from tuning.finalists import Finalist, finalists
from tuning.learning_rates import main as sweep
from tuning.optuna_study import Study
from tuning.sampler import TrialSampler
from tuning.study import main as listing
from tuning.study_config import FRESH_SEEDS
from tuning.study_status import connect
from tuning.tune import OPTIONS, main, study_configs
from whichlora.experiment.command import main as experiment
from whichlora.tracking.client import connect as connect_tracking
from whichlora.tracking.runs import Tracker
from whichlora.training import trainer

FEW = {"train_size": 16, "validation_size": 3, "test_size": 6, "batch_size": 8, "epochs": 1, "reports": 2}
SPACE = "learning_rate: [1e-3, 2e-3, 1e-2]\nrank: [2, 8]\nalpha: [16, 32]\ntarget_modules: [all-linear]\n"


@pytest.fixture
def options(store: Path, tiny_model: str) -> dict[str, str]:
    (store / "space.yaml").write_text(SPACE)
    given: dict[str, Any] = {**FEW, "model": tiny_model, "space": "space.yaml", "variant": "lora", "trials": 6}
    return {name: str(value) for name, value in given.items()}


def call(options: dict[str, str], **more: Any) -> int:
    given = options | {name: str(value) for name, value in more.items()}
    return main([part for name, value in given.items() for part in (f"--{name}", value)])


def study(options: dict[str, str], **more: Any) -> Study:
    (config,) = study_configs({name: default for name, (default, _) in OPTIONS.items()} | options | more)
    return Study(config, Tracker(connect_tracking(), "whichlora"), connect(), command="")


def runs(kind: str, status: str) -> list[Any]:
    client = MlflowClient()
    ids = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(ids, f"tags.`whichlora.kind` = '{kind}' and attributes.status = '{status}'")


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make trainings with an alpha of at least `alpha` diverge in their second step; count them."""
    state = {"alpha": 32, "count": 0}
    check = trainer.prove_step

    def prove_step(step: int, loss: Any, norm: Any, model: Any, **options: Any) -> bool:
        if step == 2 and model.peft_config["default"].lora_alpha >= state["alpha"]:
            state["count"] += 1
            loss = loss * math.nan
        return check(step, loss, norm, model, **options)

    monkeypatch.setattr(trainer, "prove_step", prove_step)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mean", "mean,parameters"])
def test_a_diverged_trial_counts_with_the_worst_value_and_is_never_the_best(
    options: dict[str, str], diverging: dict[str, Any], objective: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options | {"objective": objective}
    # The recommended arm has an alpha of 32, so it diverges with the fresh seeds; it must not block another winner.
    assert call(options) == 0
    printed = capsys.readouterr()
    found = study(options)
    trials = found.counted()
    bad = [trial for trial in trials if diverged(trial)]
    assert len(trials) == 6
    assert bad
    for trial in bad:
        assert trial.params["alpha"] == 32
        assert trial.state is TrialState.COMPLETE
        assert trial.values == found.config.objective.worst
        assert trial.user_attrs["error"] == "NonFiniteError: the training loss is nan at step 2"
        assert MlflowClient().get_run(trial.user_attrs["run_id"]).info.status == "FAILED"
    assert not any(t.params["alpha"] == 32 for t in found.optuna.best_trials)
    assert not found.trials(TrialState.FAIL)
    assert f"{len(bad)} of 6 trials diverged and count with F1 0" in printed.out
    assert "recommended diverged with 2 of 2 fresh seeds" in printed.out
    assert "diverged, counted with F1 0: the training loss is nan at step 2" in printed.out

    best = report.winner(finalists(found))
    assert best is not None
    assert best.point["alpha"] == 16
    (parent,) = runs("study", "FINISHED")
    assert parent.data.metrics["trials/diverged"] == len(bad)
    table = pd.read_csv(download_artifacts(run_id=parent.info.run_id, artifact_path="study/trials.csv"))
    assert table["value"].notna().all()
    assert list(table.loc[table["state"] == "diverged", "value"]) == [0.0] * len(bad)
    curve = pd.read_csv(download_artifacts(run_id=parent.info.run_id, artifact_path="study/curve.csv"))
    assert curve.notna().all(axis=None)

    assert listing(["status"]) == 0
    assert f"{len(bad)} of the complete trials diverged" in capsys.readouterr().out
    count = diverging["count"]
    assert call(options) == 0
    assert diverging["count"] == count  # neither the trials nor the finalists are trained again


@pytest.mark.slow
def test_a_study_of_diverged_trials_has_no_best_point_and_ends(
    options: dict[str, str], diverging: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    diverging["alpha"] = 0
    assert call(options, trials=5) == 1
    assert "no best point, training diverged for every finalist" in capsys.readouterr().err
    found = study(options)
    assert [trial.values for trial in found.counted()] == [[0.0]] * 5
    assert found.problem is None
    assert report.winner(finalists(found)) is None
    assert listing(["status"]) == 0
    assert "best:" not in capsys.readouterr().out
    count = diverging["count"]
    assert call(options, trials=5) == 1
    assert diverging["count"] == count


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_the_sampler_learns_where_trials_diverge(directions: list[str]) -> None:
    """Where x is above .5 they do: after some trials the sampler rarely proposes that half."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.create_study(directions=directions, sampler=TrialSampler("test"))
    worst = [0.0, math.inf][: len(directions)]

    def objective(trial: optuna.Trial) -> Any:
        x = trial.suggest_float("x", 0, 1)
        if x > 0.5:
            mark_diverged(trial)
            return worst
        return [0.4 - abs(x - 0.2), x][: len(directions)]

    found.optimize(objective, n_trials=40)
    late = [trial for trial in found.trials if trial.number >= 15]
    assert sum(map(diverged, late)) <= 3
    assert any(map(diverged, found.trials))
    assert not any(map(diverged, found.best_trials))
    assert len(converged(found.trials)) + sum(map(diverged, found.trials)) == 40


def test_a_finalist_that_diverged_on_a_seed_is_no_winner() -> None:
    good = Finalist(origin="trial 1", point={}, fresh=[0.2, 0.3])
    lucky = Finalist(origin="trial 2", point={}, fresh=[0.9], diverged=1)
    assert len(FRESH_SEEDS) == 2
    assert report.winner([lucky, good]) == good
    assert report.winner([lucky]) is None
    assert report.winner([good, Finalist(origin="trial 3", point={}, fresh=[0.9])]) is None  # a score is missing
    assert lucky.score == -math.inf


@pytest.mark.slow
def test_a_training_of_a_sweep_that_diverged_is_shown_as_such_and_not_repeated(
    store: Path, tiny_model: str, diverging: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "sweep.yaml").write_text(
        f"name: rates\ndefaults: {{model: {tiny_model}, train_size: 16, validation_size: 3, seed: [0, 1]}}\n"
        "arms: [{variant: lora, learning_rate: [1e-3, 2e-3]}]\nsweep: {best: 1, changes: {alpha: [64]}}\n"
    )
    for _ in range(2):
        assert sweep(["--file", "sweep.yaml", "--keep_adapters", "none"]) == 0
        printed = capsys.readouterr().out
        assert "| alpha=64 | - | 0 of 1, 1 diverged |" in printed
        rows = [line.split(" | ") for line in printed.splitlines()]
        assert [row[2:] for row in rows if row[2:3] == ["alpha=64"]] == [
            ["alpha=64", "diverged", "diverged", "- |"],
            ["alpha=64", "0", "", "", "", "diverged: the training loss is nan at step 2 |"],
            ["alpha=64", "1", "", "", "", "diverged: the training loss is nan at step 2 |"],
        ]
        assert diverging["count"] == 2


@pytest.mark.slow
def test_a_sweep_in_which_everything_diverges_ends_without_changes_and_without_an_arm(
    store: Path, tiny_model: str, diverging: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    diverging["alpha"] = 0
    (store / "sweep.yaml").write_text(
        f"name: rates\ndefaults: {{model: {tiny_model}, train_size: 16, validation_size: 3, seed: [0, 1]}}\n"
        "arms: [{variant: lora, learning_rate: [1e-3, 2e-3]}]\nsweep: {best: 1, extend: 2, changes: {epochs: [2]}}\n"
    )
    command = ["--file", "sweep.yaml", "--keep_adapters", "none"]
    assert sweep([*command, "--dry_run", "true"]) == 0
    assert "5 trainings: 0 done, 5 missing; at most 4 more (4 for a method) where" in capsys.readouterr().err
    assert sweep(command) == 0
    assert "```yaml\n  # lora: no rate, because its trainings diverged\n```" in capsys.readouterr().out
    assert diverging["count"] == 3
    assert sweep(command) == 0
    assert "3 trainings: 3 done, 0 missing.\n" in capsys.readouterr().err
    assert diverging["count"] == 3


def test_an_experiment_does_not_repeat_a_run_that_diverged_and_finishes_the_others(
    store: Path, tiny_model: str, diverging: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "grid.yaml").write_text(
        f"name: grid\ndefaults: {{model: {tiny_model}, train_size: 16, validation_size: 3, test_size: 6, seed: 1}}\n"
        "arms:\n- {variant: lora, arm: matched, alpha: 64}\n- {variant: lora, arm: matched}\n"
    )
    assert experiment(["--file", "grid.yaml"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 runs are done." in printed
    assert "NonFiniteError: the training loss is nan at step 2" in printed
    assert diverging["count"] == 1
    assert len(runs("run", "FAILED")) == len(runs("run", "FINISHED")) == 1
