"""Defines and registers the tasks; `get_task` returns a task by name.

`base` defines the interface and `items` the item types; `nli` and `qa` have the base classes of NLI and QA tasks. The
tasks are `xnli`, `tydiqa`, `align_words` (with word pairs in `pairs/`), the synthetic ones in `atlas/`, and those that
are declared in YAML files (`declared/`), of which `catalogue/` has some. `importing` finds those of users in Python.
`distributed/` has more layouts of `xnli` and `tydiqa`. They share `prompts`, `files` (reading data; `delimited` and
`folder_contents` help), `spans` (accepted answers), `stratification` (sampling), `duplicates` (repeated items),
`text_metrics`, and the shallow baselines of NLI (`shallow_baselines`) and of any task (`generic_baselines`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from whichlora.data.tasks.align_words import AlignWords
from whichlora.data.tasks.atlas import AtlasNli, AtlasQa
from whichlora.data.tasks.base import PairTask, PromptTask, Sizes, Split, Task
from whichlora.data.tasks.catalogue import CATALOGUE
from whichlora.data.tasks.importing import import_task
from whichlora.data.tasks.items import Item
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.data.tasks.tydiqa import TydiQa
from whichlora.data.tasks.xnli import Xnli
from whichlora.errors import OptionError, check_choice

TASKS: dict[str, type[Task]] = {task.name: task for task in (AtlasNli, AtlasQa, Xnli, TydiQa, AlignWords)}
"""The tasks that are written in Python, by name."""
NAMES = (*TASKS, *CATALOGUE)
"""Names of all tasks of the package."""
PROMPTED = tuple(name for name in NAMES if name not in TASKS or issubclass(TASKS[name], PromptTask))
"""Names of the tasks of the package whose items are prompts with an answer."""
_OTHERS = "or the path of a task's YAML file, or MODULE:CLASS"
VALUES = f"{', '.join(NAMES)}, {_OTHERS}"
"""The values of an option that names a task, for its help; `PROMPTED_VALUES` are those with prompts."""
PROMPTED_VALUES = f"{', '.join(PROMPTED)}, {_OTHERS}"


def task_class(
    name: str, *, option: str = "task", prompted: bool = False, others: Sequence[str] = (), stored: bool = False
) -> type[Task]:
    """Return the class of a task of the package, of a YAML file, or given as MODULE:CLASS.

    Args:
        option: the option that names the task, for messages.
        prompted: whether only tasks are allowed whose items are prompts with an answer.
        others: further values of the option, for messages.
        stored: whether the name was read from a model or a run: no class is then imported from the caller's folder.

    Raises:
        OptionError: there is no such task, or it cannot be read or is not allowed.
    """
    names = PROMPTED if prompted else NAMES
    if name in TASKS and name in names:
        return TASKS[name]
    if ":" in name and "/" not in name:
        task = import_task(name, option, stored=stored)
    else:
        from whichlora.data.tasks import declared  # pydantic, PyYAML and Jinja, which other tasks do not need

        if name in names:
            return declared.of_catalogue(name)
        if not name.endswith((".yaml", ".yml")):
            check_choice(option, name, (*others, *names), or_else=_OTHERS)
        task = declared.from_file(name, option=option)
    if task.name in NAMES:
        raise OptionError(option, name, f"declares {task.name}, which is a task of the package; give it another name")
    if prompted and not issubclass(task, PromptTask):
        raise OptionError(option, name, "has no prompts with an answer, which are needed here")
    return task


def get_task(name: str, prompt_language: PromptLanguage | None = None, *, stored: bool = False) -> Task:
    """Return a task by name, path or class, with prompts in the source language ("en") or that of each item ("item").

    Args:
        stored: see `task_class`.

    Raises:
        OptionError: there is no such task, or it cannot be read.
    """
    return _instance(task_class(name, stored=stored), prompt_language)


@functools.cache
def _instance(task: type[Task], prompt_language: PromptLanguage | None) -> Task:
    return task(prompt_language)


__all__ = [
    "NAMES",
    "PROMPTED",
    "PROMPTED_VALUES",
    "TASKS",
    "VALUES",
    "Item",
    "PairTask",
    "PromptTask",
    "Sizes",
    "Split",
    "Task",
    "get_task",
    "task_class",
]
