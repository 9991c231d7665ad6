"""Small studies with real trainings on the tiny model."""

from __future__ import annotations

from typing import Any

from mlflow.tracking import MlflowClient

from tuning.optuna_study import Study
from tuning.study_status import connect
from tuning.tune import OPTIONS, main, study_configs
from whichlora.tracking.client import connect as connect_tracking
from whichlora.tracking.runs import Tracker

FEW = {"train_size": 16, "validation_size": 3, "test_size": 6, "batch_size": 8, "epochs": 1, "reports": 2}
SPACE = "learning_rate: [1e-3, 2e-3, 1e-2, 3e-2]\nrank: [2, 4, 8]\nalpha: [8, 16, 32]\ntarget_modules: [all-linear]\n"


def call(options: dict[str, str], **more: Any) -> int:
    given = options | {name: str(value) for name, value in more.items()}
    return main([part for name, value in given.items() for part in (f"--{name}", value)])


def runs(kind: str) -> list[Any]:
    client = MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, f"tags.`whichlora.kind` = '{kind}'")


def study(options: dict[str, str], **more: Any) -> Study:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options | more
    (config,) = study_configs(texts)
    return Study(config, Tracker(connect_tracking(), "whichlora"), connect(), command="")
