"""Finds a run or trial that has trained an adapter, and the files of the adapter."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError
from whichlora.tracking.sqlite import artifact_folder

ADAPTER = "adapter"
"""The folder of a run's artifacts with its adapter; for the variant `full`, its model."""
_KINDS = ("run", "trial")


def finished_run(client: MlflowClient, run_id: str) -> Run:
    """Return a finished run or trial.

    Raises:
        OptionError: there is no run of this id, it is of another kind, or it has not finished.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise OptionError("run_id", run_id, "must be the id of a run in the tracking database") from error
    kind, status = run.data.tags.get("whichlora.kind"), run.info.status
    if run.info.lifecycle_stage != "active":
        raise OptionError("run_id", run_id, "was deleted")
    if kind not in _KINDS:
        advice = ""
        if result := run.data.tags.get("whichlora.result"):
            advice = f"; its result is the run {result}"
        described = f"of kind {kind}" if kind else "not of whichlora"
        raise OptionError("run_id", run_id, f"must be a run or trial with an adapter, but is {described}{advice}")
    if status != "FINISHED":
        reason = {"RUNNING": "has not finished; wait for it", "FAILED": "has failed, and logged no adapter"}
        raise OptionError("run_id", run_id, reason.get(status, f"is {status.lower()}, and logged no adapter"))
    return run


def adapter_files(client: MlflowClient, run: Run, folder: Path) -> Path:
    """Return the folder with a run's adapter: where it is stored if that is on this machine, else a copy in `folder`.

    Raises:
        OptionError: there is none.
    """
    run_id = str(run.info.run_id)
    stored = artifact_folder(run.info.artifact_uri)
    if stored is not None and (stored / ADAPTER).is_dir():
        return stored / ADAPTER
    try:
        if any(file.path == ADAPTER for file in client.list_artifacts(run_id)):
            return Path(client.download_artifacts(run_id, ADAPTER, str(folder)))
    except (MlflowException, OSError) as error:
        raise OptionError("run_id", run_id, f"its adapter cannot be read ({_reason(error)})") from error
    raise OptionError("run_id", run_id, f"has no adapter among its artifacts{_why_none(run)}")


def _why_none(run: Run) -> str:
    """Return why a run has no adapter, if that is known."""
    if run.data.params.get("variant") == "none":
        return ": the variant none trains nothing"
    if "whichlora.pruned" in run.data.tags:
        return ": the trial was pruned"
    if run.data.tags.get("whichlora.kind") == "trial":
        return ": the study did not keep it"
    return "; it was deleted, or left out of an archive"


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
