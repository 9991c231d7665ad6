"""Resolves the option `retention`: a task that a run is scored on without training it, to measure forgetting."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.config.options import RunOptions
from whichlora.data import mixture
from whichlora.data.tasks import PROMPTED, Item, Task, get_task
from whichlora.errors import OptionError


def retained_task(task: Task, options: RunOptions) -> Task | None:
    """Return the task on which retention is measured, or None.

    Raises:
        OptionError: It is the trained task, or `retention_size` is set without a task.
    """
    name = options.retention
    if name in (task.name, options.task):
        others = [other for other in PROMPTED if other != name]
        raise OptionError("retention", name, f"is the trained task; allowed are none, {', '.join(others)}")
    if name == "none" and options.retention_size is not None:
        raise OptionError("retention_size", options.retention_size, "needs a task in retention; remove the option")
    return None if name == "none" else get_task(name, options.prompt_language)


def retained_items(task: Task, options: RunOptions) -> dict[str, Sequence[Item]]:
    """Return the test items of the retention task by role: in English, and in the target language if the task has it.

    They are the first test items of a run that trains this task, so that both share the base model's scores.

    Raises:
        OptionError: The task has fewer items than requested, or no data.
    """
    targets = mixture.target_languages(task, options.language)
    roles: dict[str, Sequence[str]] = {"en": (task.source,)} if task.source else {}
    if set(targets) <= set(task.languages):
        roles["tl"] = targets
    task.check_prompts([code for languages in roles.values() for code in languages])
    size = "retention_size", options.retention_size or task.sizes.test
    difficulty = task.difficulties[0]
    return {
        role: mixture.draw_test(task, languages, size, difficulty=difficulty, data_dir=options.data_dir)
        for role, languages in roles.items()
    }
