"""The MLflow client: databases, experiments and launches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError
from whichlora.tracking.sqlite import file_of, lock_of

if TYPE_CHECKING:
    from mlflow.entities import Experiment

DEFAULT_EXPERIMENT = "whichlora"
_PAGE = 1000
"""Results that the tracking server hands out at once; it allows no more."""


def sqlite_file() -> Path | None:
    """Return the tracking database's file when it is SQLite, else None."""
    return file_of(mlflow.get_tracking_uri())


def work_folder() -> Path:
    """Return where unfinished runs keep their checkpoints: `WHICHLORA_WORK`, else beside the SQLite database."""
    given = os.environ.get("WHICHLORA_WORK")
    if given:
        return Path(given).absolute()
    file = sqlite_file()
    return (file.parent if file else Path.cwd()) / "whichlora-work"


def connect() -> MlflowClient:
    """Return a client of the tracking server or database, whose schema exists from now on."""
    file = sqlite_file()
    if file is None:
        return MlflowClient()
    with lock_of(file):
        return ensure_schema(MlflowClient())


def require_database(option: str, value: object) -> None:
    """Raise `OptionError` if an option names what is in a tracking database that is not there: `connect` makes one."""
    file = sqlite_file()
    if file is not None and not file.is_file():
        wanted = "work in its folder, or set MLFLOW_TRACKING_URI"
        raise OptionError(option, value, f"there is no tracking database {file}; {wanted}")


def ensure_schema(client: MlflowClient) -> MlflowClient:
    """Have a database's schema made, which MLflow does at the first request."""
    client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called `name`, creating it with its artifacts beside a SQLite database."""
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file()
        place = (file.parent / "mlartifacts" / name).as_uri() if file else None
        try:
            # Without the tag the UI opens the experiment as one of language-model traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=place, tags=tags))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def default_experiment(client: MlflowClient) -> str:
    """Return the name of the experiment that results go to.

    That is the one named by `mlflow run --experiment-name` or `MLFLOW_EXPERIMENT_NAME`, and `whichlora` otherwise.
    """
    launch_experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    if launch_experiment != "0":
        return str(client.get_experiment(launch_experiment).name)
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def mark_launch(client: MlflowClient) -> str | None:
    """Tag the run that `mlflow run` made as a launch and return its id; None when started otherwise."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    client.set_tag(run_id, "whichlora.kind", "launch")
    client.set_tag(run_id, "mlflow.note.content", "Only the launch: the results are in the runs that it made.")
    return run_id


def search_all(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Yield all that a search of a client finds, page by page."""
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return
