"""Connects to MLflow: tracking databases, experiments, and runs created by `mlflow run`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError
from whichlora.tracking.sqlite import database_file, schema_lock

DEFAULT_EXPERIMENT = "whichlora"
_PAGE = 1000
"""Results per page of a search; the tracking server allows no more."""


def sqlite_file() -> Path | None:
    """Return the tracking database's file when it is SQLite, else None."""
    return database_file(mlflow.get_tracking_uri())


def work_folder() -> Path:
    """Return the folder for checkpoints of unfinished runs.

    It is set by `WHICHLORA_WORK`; by default it is `whichlora-work` beside the SQLite database, if any, or else in the
    current folder.
    """
    path = os.environ.get("WHICHLORA_WORK")
    if path:
        return Path(path).absolute()
    file = sqlite_file()
    return (file.parent if file else Path.cwd()) / "whichlora-work"


def connect() -> MlflowClient:
    """Return a client of the tracking server or database, creating the schema of a SQLite database if needed."""
    file = sqlite_file()
    if file is None:
        return MlflowClient()
    with schema_lock(file):
        return ensure_schema(MlflowClient())


def require_database(option: str, value: object) -> None:
    """Check that the SQLite database exists, for an option that refers to its contents; `connect` would create one.

    Raises:
        OptionError: It does not exist.
    """
    file = sqlite_file()
    if file is not None and not file.is_file():
        advice = "run the command in the folder of the database, or set MLFLOW_TRACKING_URI"
        raise OptionError(option, value, f"there is no tracking database {file}; {advice}")


def ensure_schema(client: MlflowClient) -> MlflowClient:
    """Send a first request, at which MLflow creates the database's schema if needed, and return the client."""
    client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called `name`, creating or restoring it if needed.

    With a SQLite database its artifacts are stored beside the database.
    """
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is None:
        file = sqlite_file()
        location = (file.parent / "mlartifacts" / name).as_uri() if file else None
        try:
            # Without this tag the UI shows the experiment as one for LLM traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:  # another process created it first
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def default_experiment(client: MlflowClient) -> str:
    """Return the name of the experiment for results.

    It is set by `mlflow run --experiment-name` or `MLFLOW_EXPERIMENT_NAME`, and is `whichlora` otherwise.
    """
    launch_experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    if launch_experiment != "0":
        return str(client.get_experiment(launch_experiment).name)
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def mark_launch(client: MlflowClient) -> str | None:
    """Tag the run created by `mlflow run` as a launch and return its id; None if started another way."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    client.set_tag(run_id, "whichlora.kind", "launch")
    client.set_tag(run_id, "mlflow.note.content", "Launch only: the results are in the runs that it started.")
    return run_id


def search_all(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Yield all results of an MLflow search, page by page."""
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return
