"""The option `retention`: a task that a run does not train and is scored on, to measure what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.config.options import RunOptions
from whichlora.data import mixture
from whichlora.data.tasks import PROMPTED, Item, Task, get_task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError


def retained_task(task: Task, options: RunOptions) -> Task | None:
    """Return the task that the options name beside the one that is trained, or None.

    Raises:
        OptionError: it is the one that is trained, or a size is given for none.
    """
    name = options.retention
    if name == task.name:
        others = [other for other in PROMPTED if other != name]
        raise OptionError("retention", name, f"is what is trained; allowed are none, {', '.join(others)}")
    if name == "none" and options.retention_size is not None:
        raise OptionError("retention_size", options.retention_size, "needs a task in retention; remove the option")
    return None if name == "none" else get_task(name, options.prompt_language)


def retained_items(task: Task, options: RunOptions) -> dict[str, Sequence[Item]]:
    """Return the task's test items by role: in English, and in the target language where the task has it.

    They are the first that a run which trains the task would be scored on, so that the base model is scored once.

    Raises:
        OptionError: there are fewer than asked for, or no data.
    """
    targets = mixture.target_languages(task, options.language)
    roles: dict[str, Sequence[str]] = {"en": (SOURCE_LANGUAGE,)}
    if set(targets) <= set(task.languages):
        roles["tl"] = targets
    task.check_prompts([code for languages in roles.values() for code in languages])
    wanted = "retention_size", options.retention_size or task.sizes.test
    difficulty = task.difficulties[0]
    return {
        role: mixture.draw_test(task, languages, wanted, difficulty=difficulty, data_dir=options.data_dir)
        for role, languages in roles.items()
    }
