"""Finds the folder of a model: of a run, of the Model Registry, or as it is given."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.caller import given_path
from whichlora.errors import OptionError, did_you_mean, first_line, is_folder
from whichlora.serving.saved import FILE_NAME
from whichlora.tracking.client import connect, require_database, search_all
from whichlora.tracking.launch import mark_launch
from whichlora.tracking.logged_models import CHAMPION, model_of_run
from whichlora.tracking.lookup import LISTS
from whichlora.tracking.sqlite import artifact_folder
from whichlora.tracking.trained import adapter_files, finished_run

_URI = "models:/"
_SHOWN = 10
"""Number of registered models that an error names."""


def model_folder(run_id: str | None, model: str | None, scratch: Path) -> Path:
    """Return the folder of the model that the options name; what is not on this machine is copied to `scratch`.

    Raises:
        OptionError: there is no such model.
    """
    if model is not None and not model.startswith(_URI) and is_folder(given_path(model)):
        return given_path(model).absolute()
    if run_id is not None:
        require_database("run_id", run_id)
        client = connect()
        mark_launch(client)
        return _of_run(client, run_id, scratch)
    assert model is not None
    require_database("model", model)
    client = connect()
    mark_launch(client)
    uri = model if model.startswith(_URI) else _registered(client, model)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))
    except (MlflowException, OSError) as error:
        problem = f"cannot be read ({first_line(error)}); {_there_are(client, model)}"
        raise OptionError("model", model, problem) from error


def _of_run(client: MlflowClient, text: str, scratch: Path) -> Path:
    run = finished_run(client, text)
    run_id = str(run.info.run_id)
    logged = model_of_run(client, run_id)
    if logged is not None:
        return _of_logged(client, run_id, logged, scratch)
    folder = adapter_files(client, run, scratch)
    if not (folder / FILE_NAME).is_file():
        allowed = (
            "has no model that predicts texts: its task is one of word pairs or has items of its own kind, "
            "or an earlier version of whichlora trained it"
        )
        raise OptionError("run_id", text, allowed)
    return folder


def _of_logged(client: MlflowClient, run_id: str, logged: LoggedModel, scratch: Path) -> Path:
    stored = artifact_folder(logged.artifact_location)
    if stored is not None and stored.is_dir():
        return stored
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=logged.model_uri, dst_path=str(scratch)))
    except (MlflowException, OSError) as error:
        raise OptionError("run_id", run_id, f"its model cannot be read ({first_line(error)})") from error


def _there_are(client: MlflowClient, name: str) -> str:
    """Return which models are registered, or what can be used in their place, for the error about another name."""
    try:
        known = [found.name for found in search_all(client.search_registered_models)]
    except MlflowException:  # the server has no Model Registry
        known = []
    if not known:
        return f"none is registered: run_id takes the model of a run, and {LISTS}"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"registered are {', '.join(known[:_SHOWN])}{more}{did_you_mean(name, known)}"


def _registered(client: MlflowClient, text: str) -> str:
    """Return the URI of a version of a registered model: of NAME@ALIAS, or of NAME the champion or the latest.

    Raises:
        OptionError: there is no such model, alias or version.
    """
    name, at, alias = text.rpartition("@")
    if not at:
        name, alias = text, ""
    try:
        aliases: dict[str, str] = client.get_registered_model(name).aliases
    except MlflowException as error:
        problem = f"is neither a folder nor a registered model; {_there_are(client, name)}"
        raise OptionError("model", text, problem) from error
    if alias or CHAMPION in aliases:
        version = aliases.get(alias or CHAMPION)
        if version is None:
            allowed = f"has no alias {alias}; it has {', '.join(sorted(aliases)) or 'none'}"
            raise OptionError("model", text, allowed)
        return f"{_URI}{name}/{version}"
    quote = '"' if "'" in name else "'"
    versions = [int(found.version) for found in search_all(client.search_model_versions, f"name={quote}{name}{quote}")]
    if not versions:
        raise OptionError("model", text, "is registered, but has no version")
    return f"{_URI}{name}/{max(versions)}"
