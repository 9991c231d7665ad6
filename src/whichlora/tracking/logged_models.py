"""Logs exactly one MLflow model for a run, even if an earlier attempt was killed while it did so."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from whichlora.tracking.client import search_all
from whichlora.tracking.model_files import link_files
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.sqlite import artifact_folder

CHAMPION = "champion"
"""Alias in the Model Registry of the version to use."""
_FORBIDDEN = str.maketrans(dict.fromkeys("/:.%\"'", "-"))
"""MLflow refuses these characters in the name of a model."""


@dataclass(frozen=True)
class ModelLog:
    """Logs to the model of a run."""

    run: RunLog
    model: LoggedModel

    def artifacts(self, folder: Path) -> None:
        """Log the contents of a folder as artifacts of the model."""
        self.run.client.log_model_artifacts(self.model.model_id, str(folder))

    def adopt(self, folder: Path, artifact_path: str) -> None:
        """Log a folder that the run has logged under `artifact_path`, under the same path of the model.

        On a disk the files are hard links to the run's, which take no space: neither changes once it is logged, and
        each can be deleted without the other. Where there are no links, as on a server, they are uploaded once more.
        """
        run = self.run.client.get_run(self.run.run_id)
        sources, targets = artifact_folder(run.info.artifact_uri), artifact_folder(self.model.artifact_location)
        if sources is not None and targets is not None and (sources / artifact_path).is_dir():
            try:
                link_files(sources / artifact_path, targets / artifact_path)
                return
            except OSError:  # another file system, or one without links
                pass
        self.run.client.log_model_artifacts(self.model.model_id, str(folder), artifact_path)

    def finish(self) -> None:
        """Mark the model as ready, once all artifacts are logged."""
        if self.model.status is not LoggedModelStatus.READY:
            self.run.client.finalize_logged_model(self.model.model_id, LoggedModelStatus.READY)

    def fail(self) -> None:
        """Mark the model as failed, if the server can be reached."""
        with contextlib.suppress(MlflowException, SQLAlchemyError):
            self.run.client.finalize_logged_model(self.model.model_id, LoggedModelStatus.FAILED)


def open_model(log: RunLog, *, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> ModelLog | None:
    """Return the model of a run, created unless an earlier attempt has done so, as an output of the run.

    It is None on a server before MLflow 3, which has no logged models. If the server's answer is lost, MLflow's client
    sends the request again, which creates a second model: the one with the lowest id is used, the others are deleted.

    Args:
        tags: without their prefix `whichlora.`.

    Raises:
        MlflowException: The server created no model.
    """
    log.check()
    client, run = log.client, log.client.get_run(log.run_id)
    try:
        found = _models_of(client, run.info.experiment_id, log.run_id)
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        return None
    if not found:
        lost: MlflowException | None = None
        try:
            client.create_logged_model(
                run.info.experiment_id,
                name=name.translate(_FORBIDDEN),
                source_run_id=log.run_id,
                params=dict(params),
                tags={f"whichlora.{key}": value for key, value in tags.items()},
            )
        except MlflowException as error:
            lost = error
        found = _models_of(client, run.info.experiment_id, log.run_id)
        if lost is not None and not found:
            raise lost
    model, *duplicates = found
    for duplicate in duplicates:
        client.delete_logged_model(duplicate.model_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(log.run_id, [LoggedModelOutput(model_id=model.model_id, step=0)])
    return ModelLog(log, model)


def model_of_run(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """Return the model that a run has logged, or None."""
    found = _models_of(client, client.get_run(run_id).info.experiment_id, run_id)
    return next((model for model in found if model.status is LoggedModelStatus.READY), None)


def model_uri(client: MlflowClient, run_id: str) -> str | None:
    """Return the URI of the model that a run has logged; None without one, or on a server before MLflow 3."""
    with contextlib.suppress(MlflowException):
        if model := model_of_run(client, run_id):
            return str(model.model_uri)
    return None


def _models_of(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """Return the models of a run, in the order of their ids."""
    found = search_all(client.search_logged_models, [experiment_id], f"source_run_id = '{run_id}'")
    return sorted(found, key=lambda model: str(model.model_id))
