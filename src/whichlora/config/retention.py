"""The option `retention`: a task that a run does not train, and is scored on to see what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.data import mixture
from whichlora.data.tasks import PROMPTED, Item, Task, get_task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError

ROLES = "retention/"
"""What the roles of its test items begin with: `retention/en` and `retention/tl`."""


def retained_task(task: Task, values: Mapping[str, Any]) -> Task | None:
    """Return the task that the options name beside the one that is trained, or None.

    Raises:
        OptionError: it is the one that is trained, or a size is given for none.
    """
    name = values["retention"]
    if name == task.name:
        others = [other for other in PROMPTED if other != name]
        raise OptionError("retention", name, f"is what is trained; allowed are none, {', '.join(others)}")
    if name == "none" and values["retention_size"] is not None:
        raise OptionError("retention_size", values["retention_size"], "needs a task in retention; leave it out")
    return None if name == "none" else get_task(name, values["prompt_language"])


def test_items_by_role(task: Task, values: Mapping[str, Any]) -> dict[str, Sequence[Item]]:
    """Return by role the task's test items: in English, and in the target language where the task has it.

    They are the first that a run which trains the task would be scored on, so that the base model is scored once.

    Raises:
        OptionError: there are fewer than asked for, or no data.
    """
    targets = mixture.target_languages(task, values["language"])
    roles: dict[str, Sequence[str]] = {"en": (SOURCE_LANGUAGE,)}
    if set(targets) <= set(task.languages):
        roles["tl"] = targets
    task.check_prompts([code for languages in roles.values() for code in languages])
    wanted = "retention_size", values["retention_size"] or task.sizes.test
    difficulty = task.difficulties[0]
    return {
        f"{ROLES}{role}": mixture.test_items(task, languages, wanted, values["data_dir"], difficulty)
        for role, languages in roles.items()
    }
