"""Resolves the option `retention`: a task that a run is scored on without training it, to measure forgetting."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.config.options import RunOptions
from whichlora.data.mixture import draw_test
from whichlora.data.targets import target_languages
from whichlora.data.tasks import NAMES, PROMPTED, Item, Task, get_task
from whichlora.errors import OptionError


def retained_task(task: Task, options: RunOptions) -> Task | None:
    """Return the task on which retention is measured, or None.

    Raises:
        OptionError: It is the trained task, or `retention_size` is set without a task.
    """
    name = options.retention
    if name == "none":
        if options.retention_size is not None:
            raise OptionError("retention_size", options.retention_size, "needs a task in retention; remove the option")
        return None
    retained = get_task(name, options.prompt_language)
    if retained.name == task.name:
        others = [other for other in PROMPTED if other != name]
        raise OptionError("retention", name, f"is the trained task; allowed are none, {', '.join(others)}")
    return retained


def retained_items(task: Task, options: RunOptions) -> dict[str, Sequence[Item]]:
    """Return the test items of the retention task by role: in its own source language, and in the run's target
    languages if it has them.

    They are the first test items of a run that trains this task, so that both share the base model's scores.

    Raises:
        OptionError: The task has fewer items than requested, or no data.
    """
    targets = target_languages(task, options.language)
    roles: dict[str, Sequence[str]] = {"en": (task.source,)} if task.source else {}
    if targets and set(targets) <= {*task.languages} - {task.source}:
        roles["tl"] = targets
    if not roles:
        raise OptionError("retention", options.retention, f"has no items in {options.language}, the target language")
    task.check_prompts([code for languages in roles.values() for code in languages])
    size = "retention_size", options.retention_size or task.sizes.test
    difficulty = task.difficulties[0]
    # The data of a user's own task is beside its file, and `data_dir` is that of the trained task.
    data_dir = options.data_dir if options.retention in NAMES else None
    return {
        role: draw_test(task, languages, size, difficulty=difficulty, data_dir=data_dir)
        for role, languages in roles.items()
    }
