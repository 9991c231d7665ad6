"""Creates exactly one run, even if the server's answer is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient


def create_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], name: str) -> str:
    """Create a run and return its id.

    If the answer is lost, MLflow's client sends the request again, which creates a second run, or gives up. Runs of one
    request have the same tags and start time: the one with the lowest id is used, the others are deleted.

    Raises:
        MlflowException: The server created no run.
    """
    start = int(time.time() * 1000)
    created: list[str] = []
    lost: MlflowException | None = None
    try:
        created = [client.create_run(experiment_id, start_time=start, tags=dict(tags), run_name=name).info.run_id]
    except MlflowException as error:
        lost = error
    simultaneous = client.search_runs([experiment_id], f"attributes.start_time = {start}")
    same = (run.info.run_id for run in simultaneous if tags.items() <= run.data.tags.items())
    created = sorted({*created, *same})
    if lost is not None and not created:
        raise lost
    for duplicate in created[1:]:
        client.set_terminated(duplicate, "KILLED")
        client.delete_run(duplicate)
    return created[0]
