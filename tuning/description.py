"""Describes studies for their pages in MLflow."""

from __future__ import annotations

from tuning.study_config import TUNING_SEED, StudyConfig
from whichlora.run.description import SYNTHETIC
from whichlora.tracking.markdown import code, escaped, paragraphs


def about(config: StudyConfig, command: str) -> str:
    """Return what a study tunes, and the command that resumes it."""
    plan = config.plan(config.example, TUNING_SEED)
    facts = [
        f"**Study:** {escaped(config.variant.title)} on {escaped(plan.task.name)}, {escaped(plan.spec.language)}",
        f"**Objective:** {escaped(config.objective.text)}; pruner {escaped(config.pruner)}",
        f"**Model:** {escaped(plan.model_name)}, {plan.spec.precision}",
    ]
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
    return paragraphs("\n".join(rows), "\n".join(notes), best, code(arm.splitlines(), "yaml") if arm else "", about)
