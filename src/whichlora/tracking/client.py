"""Connects to MLflow: tracking databases and experiments."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from whichlora.caller import caller_folder, given_path
from whichlora.errors import OptionError, check_name
from whichlora.tracking.moved import warn_if_moved
from whichlora.tracking.servers import check_server
from whichlora.tracking.sqlite import artifact_folder, create_whole, database_file, is_writable, tracking_state

DEFAULT_EXPERIMENT = "whichlora"
_PAGE = 1000
"""Results per page of a search; the tracking server allows no more."""


def sqlite_file() -> Path | None:
    """Return the tracking database's file when it is SQLite, else None."""
    uri = mlflow.get_tracking_uri()
    file = database_file(uri)
    if file is not None and not uri.startswith("sqlite:////") and caller_folder() != Path.cwd():
        # MLflow would resolve it in the current folder.
        mlflow.set_tracking_uri(f"sqlite:///{quote(str(file))}")
    return file


def work_folder() -> Path:
    """Return the folder for checkpoints of unfinished runs.

    It is set by `WHICHLORA_WORK`; by default it is `whichlora-work` beside the SQLite database, if any, or else in the
    current folder.
    """
    path = os.environ.get("WHICHLORA_WORK")
    if path:
        return given_path(path).absolute()
    file = sqlite_file()
    return (file.parent if file else caller_folder()) / "whichlora-work"


def create_work_folder() -> None:
    """Create the folder that `WHICHLORA_WORK` names, if any, before other work depends on it.

    Raises:
        OptionError: It cannot be created.
    """
    if os.environ.get("WHICHLORA_WORK"):
        try:
            work_folder().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError("WHICHLORA_WORK", work_folder(), f"cannot be created: {error.strerror}") from error


def connect() -> MlflowClient:
    """Return a client of the tracking server or database, creating the schema of a SQLite database if needed.

    A database that is complete is not locked, so that it can be read in a folder of another user.

    Raises:
        OptionError: The SQLite database cannot be created, or is not one that MLflow can use; or the server cannot be
            used.
    """
    file = sqlite_file()
    if file is None:
        check_server(mlflow.get_tracking_uri())
        return MlflowClient()
    create = partial(_create_schema, artifacts=file.parent / "mlartifacts")
    create_whole(file, tracking_state, create, option="MLFLOW_TRACKING_URI")
    warn_if_moved(file)
    with _no_stray_folder():
        return MlflowClient()


@contextmanager
def _no_stray_folder() -> Iterator[None]:
    """Remove the empty folder that MLflow creates beside one with special characters in its name, which it quotes."""
    folder = Path(mlflow.get_tracking_uri().removeprefix("sqlite:///")).parent
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    yield
    for path in absent:
        with suppress(OSError):
            path.rmdir()


def _create_schema(url: str, artifacts: Path) -> None:
    """Create or migrate the schema of a SQLite database that only this process knows.

    The artifacts of the experiment `Default` are stored in a subfolder of `artifacts`.
    """
    from mlflow.store.tracking import sqlalchemy_store

    new_store: Callable[[str, str], Any] = sqlalchemy_store.SqlAlchemyStore
    for name in ("mlflow.store.db", "alembic"):  # they name each migration
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        new_store(url, artifacts.as_uri()).engine.dispose()
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


def check_new_database(experiment: str | None) -> None:
    """Check what a command would store in a new database, so that a refusal leaves no empty one.

    Args:
        experiment: the name of the experiment; None for that of `default_experiment`.

    Raises:
        OptionError: The experiment cannot have this name, or a variable names something in the database.
    """
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        if os.environ.get(variable, "0") not in ("", "0"):
            require_database(variable, os.environ[variable])
    check_name("experiment", experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT)


def ensure_schema(client: MlflowClient) -> MlflowClient:
    """Send a first request, at which MLflow creates the database's schema if needed, and return the client."""
    client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called `name`, creating it if needed.

    With a SQLite database its artifacts are stored beside the database.

    Raises:
        OptionError: The experiment was deleted, artifacts cannot be stored in it, or its name cannot be that of a
            folder.
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
    check_location(experiment)
    return str(experiment.experiment_id)


def check_location(experiment: Experiment) -> None:
    """Check that this process can store artifacts where an experiment has them.

    Raises:
        OptionError: Only a tracking server can, which created the experiment; or this user cannot write there.
    """
    location = str(experiment.artifact_location)
    scheme, _, rest = location.partition(":")
    server = mlflow.get_tracking_uri().startswith(("http://", "https://", "databricks"))
    if scheme == "mlflow-artifacts" and not rest.startswith("//") and not server:
        allowed = (
            "its artifacts are on a tracking server, in whose UI it was created: set MLFLOW_TRACKING_URI to the "
            "address of that server, such as http://127.0.0.1:5000, or choose another experiment with "
            "MLFLOW_EXPERIMENT_NAME or, in a file, with name"
        )
        raise OptionError("experiment", experiment.name, allowed)
    folder = artifact_folder(location)
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), None) if folder else None
    if nearest is not None and not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        allowed = f"this user cannot write to {folder}, where its artifacts are"
        raise OptionError("experiment", experiment.name, allowed)


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
        return str(named("MLFLOW_EXPERIMENT_ID", launch_experiment, "an experiment", read).name)
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def named(variable: str, value: str, what: str, read: Callable[[str], Any] | None) -> Any:
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


def search_all(search: Callable[..., Any], *arguments: Any, most: int | None = None, **options: Any) -> Iterator[Any]:
    """Yield all results of an MLflow search, page by page; pages are shorter if the caller needs at most `most`."""
    token = None
    while True:
        page = search(*arguments, max_results=min(most or _PAGE, _PAGE), page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return
