"""Connects to MLflow: tracking databases, experiments, and runs created by `mlflow run`."""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from whichlora import termination
from whichlora.errors import OptionError, check_name
from whichlora.tracking.sqlite import create_whole, database_file, is_writable, tracking_state

DEFAULT_EXPERIMENT = "whichlora"
_PAGE = 1000
"""Results per page of a search; the tracking server allows no more."""
_LAUNCH = "WHICHLORA_LAUNCH"
"""Environment variable with the launch that this command, or the one that started it as a worker, has tagged."""
_LAUNCH_SECONDS = 3600.0
"""Age up to which a run of `mlflow run` is that of this command; `mlflow run` may install an environment first."""


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
    """Return a client of the tracking server or database, creating the schema of a SQLite database if needed.

    A database that is complete is not locked, so that it can be read in a folder of another user.

    Raises:
        OptionError: The SQLite database cannot be created, or is not one that MLflow can use.
    """
    file = sqlite_file()
    if file is not None:
        create_whole(file, tracking_state, _create_schema, option="MLFLOW_TRACKING_URI")
    return MlflowClient()


def _create_schema(url: str) -> None:
    """Create or migrate the schema of a SQLite database that only this process knows."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH, sqlalchemy_store

    new_store: Callable[[str, str], Any] = sqlalchemy_store.SqlAlchemyStore
    try:
        new_store(url, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    except (MlflowException, SQLAlchemyError) as error:
        raise sqlite3.DatabaseError(" ".join(str(error).split())[:300]) from error


def database_exists() -> bool:
    """Return whether the tracking database exists; a server counts as existing."""
    file = sqlite_file()
    return file is None or tracking_state(file) != "absent"


def is_read_only() -> bool:
    """Return whether the tracking database is a SQLite file to which this user cannot write."""
    file = sqlite_file()
    return file is not None and not is_writable(file)


def check_writable() -> None:
    """Check that results can be stored.

    Raises:
        OptionError: This user cannot write to the SQLite database or its folder.
    """
    if is_read_only():
        allowed = "this user cannot write to the database or its folder; finished results can be read"
        raise OptionError("MLFLOW_TRACKING_URI", sqlite_file(), allowed)


def require_database(option: str, value: object) -> None:
    """Check that the SQLite database exists, for an option that refers to its contents; `connect` would create one.

    Raises:
        OptionError: It does not exist.
    """
    file = sqlite_file()
    if not database_exists():
        advice = "run the command in the folder of the database, or set MLFLOW_TRACKING_URI"
        raise OptionError(option, value, f"there is no tracking database {file}; {advice}")


def ensure_schema(client: MlflowClient) -> MlflowClient:
    """Send a first request, at which MLflow creates the database's schema if needed, and return the client."""
    client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called `name`, creating it if needed.

    With a SQLite database its artifacts are stored beside the database.

    Raises:
        OptionError: The experiment was deleted, or its name cannot be that of a folder.
    """
    experiment = find_experiment(client, name)
    if experiment is None:
        check_name("experiment", name)
        file = sqlite_file()
        location = (file.parent / "mlartifacts" / name).as_uri() if file else None
        try:
            # Without this tag the UI shows the experiment as one for LLM traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:  # another process created it first
            experiment = find_experiment(client, name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def find_experiment(client: MlflowClient, name: str) -> Experiment | None:
    """Return the experiment called `name`, or None if there is none.

    Raises:
        OptionError: It was deleted.
    """
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        advice = f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        raise OptionError("experiment", name, f"was deleted; restore it with {advice} or use another name")
    return experiment


def default_experiment(client: MlflowClient) -> str:
    """Return the name of the experiment for results.

    It is set by `mlflow run --experiment-name` or `MLFLOW_EXPERIMENT_NAME`, and is `whichlora` otherwise.

    Raises:
        OptionError: `MLFLOW_EXPERIMENT_ID` is not the id of an experiment.
    """
    launch_experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"
    if launch_experiment != "0":
        valid = launch_experiment.isascii() and launch_experiment.isdecimal() and int(launch_experiment) < 2**63
        read = client.get_experiment if valid else None
        return str(_named("MLFLOW_EXPERIMENT_ID", launch_experiment, "an experiment", read).name)
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def _named(variable: str, value: str, what: str, read: Callable[[str], Any] | None) -> Any:
    """Return the object with the id that an environment variable gives; `read` is None if it cannot be an id.

    Raises:
        OptionError: There is none.
    """
    try:
        if read is not None:
            return read(value)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    raise OptionError(variable, value, f"must be the id of {what} in the tracking database; unset the variable")


def find_launch(client: MlflowClient) -> str | None:
    """Return the id of the run that `mlflow run` created for this command; None if started another way.

    Another run that `MLFLOW_RUN_ID` names, such as a finished result, is left alone, with a warning.

    Raises:
        OptionError: `MLFLOW_RUN_ID` is not the id of a run.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    reason = _why_no_launch(_named("MLFLOW_RUN_ID", run_id, "a run", client.get_run))
    if reason:
        _warn(f"warning: MLFLOW_RUN_ID={run_id} is ignored, because {reason}; unset the variable.")
        return None
    return run_id


def _why_no_launch(run: Run) -> str | None:
    """Return why a run is not the launch of this command; None if it is."""
    tags = run.data.tags
    kind = tags.get("whichlora.kind")
    if run.info.lifecycle_stage != "active" or run.info.status != "RUNNING":
        return f"that run is {'deleted' if run.info.lifecycle_stage != 'active' else run.info.status}"
    if tags.get("mlflow.source.type") != "PROJECT" or "mlflow.project.entryPoint" not in tags:
        return "that run was not created by `mlflow run`"
    if kind == "launch" and os.environ.get(_LAUNCH) == run.info.run_id:
        return None
    if kind is not None:
        return f"that run is the {kind} of another command"
    if abs(time.time() - run.info.start_time / 1000) > _LAUNCH_SECONDS:
        return "`mlflow run` created that run more than an hour ago"
    return None


@functools.cache
def _warn(text: str) -> None:
    """Print a warning, once in a process."""
    print(text, file=sys.stderr)


def mark_launch(client: MlflowClient) -> str | None:
    """Tag the run that `mlflow run` created as a launch and return its id; None if started another way.

    Raises:
        OptionError: `MLFLOW_RUN_ID` is not the id of a run.
    """
    run_id = find_launch(client)
    if run_id is not None and os.environ.get(_LAUNCH) != run_id:
        client.set_tag(run_id, "whichlora.kind", "launch")
        client.set_tag(run_id, "mlflow.note.content", "Launch only: the results are in the runs that it started.")
        os.environ[_LAUNCH] = run_id
        termination.watch_launcher(functools.partial(client.set_terminated, run_id, "KILLED"))
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
