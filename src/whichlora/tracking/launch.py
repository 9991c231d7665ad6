"""Recognises the run that `mlflow run` creates for a command, the launch, and tags it as such."""

from __future__ import annotations

import functools
import os
import sys
import time

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from whichlora import termination
from whichlora.tracking.client import named
from whichlora.tracking.markdown import NOTE_LIMIT, link, paragraphs, run_address

_LAUNCH = "WHICHLORA_LAUNCH"
"""Environment variable with the launch that this command, or the one that started it as a worker, has tagged."""
_ABOUT = (
    "A launch: it holds the options as they were given to `mlflow run`. The results are in the runs that it started, "
    "whose tag `whichlora.launch` is the id of this run."
)
_LAUNCH_SECONDS = 3600.0
"""Age up to which a run of `mlflow run` is that of this command; `mlflow run` may install an environment first."""


def find_launch(client: MlflowClient) -> str | None:
    """Return the id of the run that `mlflow run` created for this command; None if started another way.

    Another run that `MLFLOW_RUN_ID` names, such as a finished result, is left alone, with a warning.

    Raises:
        OptionError: `MLFLOW_RUN_ID` is not the id of a run.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    reason = _why_no_launch(named("MLFLOW_RUN_ID", run_id, "a run", client.get_run))
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


def link_results(client: MlflowClient, launch: str, run_ids: str) -> None:
    """Tag a launch with the ids of the runs that hold its results, separated by commas, and link them."""
    client.set_tag(launch, "whichlora.result", run_ids)
    runs = [client.get_run(run_id).info for run_id in run_ids.split(",")]
    lines = [f"- {link(run.run_name or run.run_id, run_address(run.experiment_id, run.run_id))}" for run in runs]
    client.set_tag(launch, MLFLOW_RUN_NOTE, paragraphs(_ABOUT, "\n".join(lines))[:NOTE_LIMIT])


def mark_launch(client: MlflowClient) -> str | None:
    """Tag the run that `mlflow run` created as a launch and return its id; None if started another way.

    Raises:
        OptionError: `MLFLOW_RUN_ID` is not the id of a run.
    """
    run_id = find_launch(client)
    if run_id is not None and os.environ.get(_LAUNCH) != run_id:
        client.set_tag(run_id, "whichlora.kind", "launch")
        client.set_tag(run_id, MLFLOW_RUN_NOTE, _ABOUT)
        os.environ[_LAUNCH] = run_id
        termination.watch_launcher(functools.partial(client.set_terminated, run_id, "KILLED"))
    return run_id
