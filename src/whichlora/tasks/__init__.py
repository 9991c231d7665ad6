"""The tasks."""

from __future__ import annotations

from whichlora.errors import choose
from whichlora.tasks.atlas import AtlasNli, AtlasQa
from whichlora.tasks.base import Item, Sizes, Split, Task

TASKS: dict[str, Task] = {task.name: task for task in (AtlasNli(), AtlasQa())}


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        OptionError: there is none; the message lists the names.
    """
    return TASKS[choose("task", name, TASKS)]


__all__ = ["TASKS", "Item", "Sizes", "Split", "Task", "get_task"]
