"""Finds a run or trial that has trained an adapter, and the files of the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError, first_line
from whichlora.tracking.lookup import find_run
from whichlora.tracking.model_files import ADAPTER
from whichlora.tracking.sqlite import artifact_folder

KINDS = ("run", "trial")


def finished_run(client: MlflowClient, text: str, *, option: str = "run_id", kinds: Sequence[str] = KINDS) -> Run:
    """Return the finished run or trial whose id is or begins with `text`.

    Args:
        option: the option that names the run, for error messages.
        kinds: kinds of runs that are allowed.

    Raises:
        OptionError: there is no such run, or several; it is of another kind, or it has not finished.
    """
    run = find_run(client, option, text, kinds)
    status = run.info.status
    if status != "FINISHED":
        reason = {"RUNNING": "has not finished; wait for it", "FAILED": "has failed, and logged no adapter"}
        raise OptionError(option, text, reason.get(status, f"is {status.lower()}, and logged no adapter"))
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
        raise OptionError("run_id", run_id, f"its adapter cannot be read ({first_line(error)})") from error
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
