"""Finds the task of a run that is not one of the package: its file, or what the run has logged of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.caller import given_path
from whichlora.config.spec import TASK_FILE, RunSpec
from whichlora.data.targets import target_languages
from whichlora.data.tasks import Task, get_task, task_class
from whichlora.errors import OptionError
from whichlora.tracking.client import work_folder

if TYPE_CHECKING:
    from whichlora.probing.request import Request


def options_of(client: MlflowClient, request: Request, spec: RunSpec, given: str) -> dict[str, str]:
    """Return the options `task` and, if needed, `data_dir` with which the run's items are read.

    If the file that the run was given is missing here, or says something else now, its logged text is used, with the
    data in the same folder or in `data_dir`.

    Args:
        given: the option `task` of the run.

    Raises:
        OptionError: neither the task nor its text is found, or it is not known where the data is.
    """
    try:
        found = task_class(given, prompted=True, stored=True)
        problem = "differs from what it was"
        if (found.name, found.prompt_version) == (spec.task, spec.prompt_version):
            return {"task": given}
    except OptionError as error:
        problem = error.allowed
    assert request.run_id is not None
    folder = work_folder() / f"task-{request.run_id}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        logged = Path(client.download_artifacts(request.run_id, TASK_FILE, str(folder)))
    except (MlflowException, OSError) as error:
        raise OptionError("task", given, f"is the task of the run and {problem}; set task") from error
    task = get_task(str(logged))
    language = target_languages(task, spec.language)[0]
    if request.data_dir is not None or _can_read(task, language, None):
        return {"task": str(logged)}
    beside = str(given_path(given).parent)
    if _can_read(task, language, beside):
        return {"task": str(logged), "data_dir": beside}
    raise OptionError("data_dir", "auto", f"must be the folder with the data of {spec.task}, which was beside {given}")


def _can_read(task: Task, language: str, data_dir: str | None) -> bool:
    try:
        return bool(task.load(language, "test", data_dir=data_dir))
    except OptionError:
        return False
