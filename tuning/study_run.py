"""The MLflow run of a study, under which the runs of its trials are nested, and its description."""

from __future__ import annotations

import contextlib

import optuna

from tuning.study_config import TUNING_SEED, StudyConfig
from whichlora.run.description import SCALE, SYNTHETIC
from whichlora.tracking.client import experiment_id
from whichlora.tracking.markdown import code, escaped, paragraphs
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


def about(config: StudyConfig, command: str) -> str:
    """Return what a study tunes, and the command that resumes it."""
    plan = config.plan(config.example, TUNING_SEED)
    facts = [
        f"**Study:** {escaped(config.variant.title)} on {escaped(plan.task.name)}, {escaped(plan.spec.language)}",
        f"**Objective:** {escaped(config.objective.text)}; pruner {escaped(config.pruner)}",
        f"**Model:** {escaped(plan.model_name)}, {plan.spec.precision}",
    ]
    if config.rungs.halving:
        sizes = ", ".join(str(config.rungs.items(config.train_size, rung)) for rung in range(config.rungs.number))
        facts.append(f"**Successive halving:** rungs of {sizes} training items")
    note = SYNTHETIC if plan.task.synthetic else ""
    return paragraphs(note, "\n".join(f"- {fact}" for fact in facts), "This resumes it:", code([command], "sh"))


def finished(about: str, summary: str, arm: str | None) -> str:
    """Return the description of a study with results.

    Args:
        about: what the study tunes.
        summary: table of costs and results, in Markdown, followed by a note in each line.
        arm: the best point as an arm of an experiment's file; None if there is none yet.
    """
    best = "" if arm is None else "The best point, as an arm of an experiment's file:"
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    notes = [f"- {escaped(line)}" for line in summary.splitlines() if not line.startswith("|")]
    return paragraphs(
        "\n".join(rows), SCALE, "\n".join(notes), best, code(arm.splitlines(), "yaml") if arm else "", about
    )
