"""Finds or creates the MLflow run of a study, under which the runs of its trials are nested."""

from __future__ import annotations

import contextlib

import optuna

from whichlora.tracking.client import experiment_id
from whichlora.tracking.markdown import paragraphs
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker


def study_run(study: optuna.Study, tracker: Tracker, name: str, *, about: str) -> str:
    """Return the id of the run of a study with this name, created if missing with `about` in its description.

    Of several created concurrently, keep the one that a process stored with the study first: the times at which they
    started are those of different clocks.
    """
    if not _find(tracker, name):
        log = tracker.open("study", f"study {name}", {"study": name, "fingerprint": name.rpartition("/")[2]})
        log.describe(paragraphs("**In progress.**", about))
    found = _find(tracker, name)
    if study.user_attrs.get("run_id") not in found:
        study.set_user_attr("run_id", found[0])
    kept: str = study.user_attrs["run_id"]
    for run_id in found:
        if run_id != kept:
            with contextlib.suppress(Exception):  # the worker that created it may have deleted it
                tracker.client.delete_run(run_id)
    if tracker.client.get_run(kept).info.status == "KILLED":
        tracker.client.update_run(kept, status="RUNNING")
    return kept


def end_interrupted(log: RunLog, about: str) -> None:
    """Mark the run of a study that was interrupted as killed."""
    log.describe(paragraphs("**Interrupted.**", about))
    log.client.set_terminated(log.run_id, "KILLED")


def _find(tracker: Tracker, name: str) -> list[str]:
    runs = tracker.client.search_runs(
        [experiment_id(tracker.client, tracker.experiment)],
        f"tags.`whichlora.kind` = 'study' and tags.`whichlora.study` = '{name}'",
    )
    return sorted(run.info.run_id for run in runs)
