"""Experiments and studies of a user's own task: paths, mixtures of several targets, and objectives."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest

from tuning import tune
from whichlora.experiment.command import main as experiment
from whichlora.experiment.grid import read_grid
from whichlora.tracking.client import connect, search_all

SIZES = {"train_size": 40, "validation_size": 6, "test_size": 9, "batch_size": 8, "learning_rate": 0.01}


def runs_of(name: str) -> list[dict[str, str]]:
    client = connect()
    found = client.get_experiment_by_name(name)
    runs = search_all(client.search_runs, [found.experiment_id], "tags.`whichlora.kind` = 'run'")
    return [dict(run.data.params) for run in runs]


def test_a_list_is_several_runs_and_a_text_one_mixture(store: Path, tiny_model: str) -> None:
    folders.reviews_task(store / "data", "de", "tr", "az", source="de")
    (store / "file.yaml").write_text(f"""
name: mixtures
defaults: {{task: data/reviews.yaml, language: [tr, az, "tr,az", "az:2,tr:1"], model: {tiny_model}, train_size: 40}}
arms: [{{variant: lora, validation_size: 6, test_size: 8}}]
""")
    plans = read_grid("file.yaml").plans
    assert [plan.spec.language for plan in plans] == ["tr", "az", "tr,az", "tr:1,az:2"]
    assert len({plan.name for plan in plans}) == 4


def test_an_experiment_runs_from_the_callers_folder(store: Path, tiny_model: str) -> None:
    folders.reviews_task(store / "data", "de", "tr", source="de")
    folders.reviews_task(store / "data", "tr", name="kept")
    sizes = ", ".join(f"{key}: {value}" for key, value in SIZES.items())
    (store / "files").mkdir()
    (store / "files/one.yaml").write_text(f"""
name: one
defaults: {{task: ./data/reviews.yaml, retention: ./data/kept.yaml, language: tr, model: {tiny_model}, {sizes}}}
arms: [{{variant: lora}}]
""")
    assert experiment(["--file", "files/one.yaml"]) == 0
    (params,) = runs_of("one")
    assert params["task_option"] == "./data/reviews.yaml"
    assert experiment(["--file", "files/one.yaml"]) == 0  # nothing is left to do
    assert len(runs_of("one")) == 1


def tuned(task: str, model: str, *more: str) -> int:
    sizes = [text for key, value in SIZES.items() for text in (f"--{key}", str(value))]
    return tune.main(["--task", task, "--language", "tr", "--model", model, "--trials", "1", *sizes, *more])


@pytest.mark.slow
def test_a_study_maximises_the_headline_metric(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = folders.reviews_task(store / "data", "de", "tr", source="de", metrics=["macro_f1"])
    assert tuned(task, tiny_model) == 0
    assert "fresh seed 9500: macro F1 " in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_in_one_language_optimises_that_language(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = folders.reviews_task(store / "data", "tr")
    assert tuned(task, tiny_model, "--objective", "en") == 2
    assert capsys.readouterr().err.strip().endswith("objective=en: reviews has no source language; allowed is tl")
    assert tuned(task, tiny_model) == 0  # the mean of the only role
