"""Proposals depend only on the study and its history, not on the process that makes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from tuning.sampler import TrialSampler, make_pruner
from tuning.study_config import PRUNERS


def search(storage: str, name: str, trials: int) -> list[dict[str, Any]]:
    """Run `trials` more trials with new objects on the same database and return all points."""
    study = optuna.create_study(
        study_name="s", storage=storage, sampler=TrialSampler(name), direction="maximize", load_if_exists=True
    )

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        rank = trial.suggest_categorical("rank", [4, 8, 16])
        return -((math.log10(rate) + 3) ** 2) - abs(rank - 8) / 10

    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


def test_a_resumed_study_proposes_what_an_uninterrupted_one_would(tmp_path: Path) -> None:
    whole = search(f"sqlite:///{tmp_path / 'a.db'}", "x", 16)
    for trials in (3, 1, 7, 5):
        resumed = search(f"sqlite:///{tmp_path / 'b.db'}", "x", trials)
    assert resumed == whole
    assert search(f"sqlite:///{tmp_path / 'c.db'}", "y", 16) != whole


def test_no_two_trials_propose_the_same_random_point(tmp_path: Path) -> None:
    points = search(f"sqlite:///{tmp_path / 'a.db'}", "x", 5)
    assert len({point["rate"] for point in points}) == 5


def test_tpe_concentrates_on_good_points(tmp_path: Path) -> None:
    points = search(f"sqlite:///{tmp_path / 'a.db'}", "x", 40)
    assert sum(1e-4 < point["rate"] < 1e-2 for point in points[20:]) > sum(1e-4 < p["rate"] < 1e-2 for p in points[:20])


@pytest.mark.parametrize(
    ("name", "pruner"), zip(PRUNERS, ("MedianPruner", "HyperbandPruner", "NopPruner"), strict=True)
)
def test_pruners_by_name(name: str, pruner: str) -> None:
    assert type(make_pruner(name, reports=4)).__name__ == pruner
