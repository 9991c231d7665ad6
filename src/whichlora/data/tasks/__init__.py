"""Defines and registers the tasks; `get_task` returns a task by name.

`base` defines the interface and `items` the item types; `nli` and `qa` have the base classes of NLI and QA tasks. The
tasks are `xnli`, `tydiqa`, `align_words` (with word pairs in `pairs/`) and the synthetic ones in `atlas/`. They share
`prompts`, `files` (reading data), `stratification` (sampling) and `shallow_baselines`.
"""

from __future__ import annotations

import functools

from whichlora.data.tasks.align_words import AlignWords
from whichlora.data.tasks.atlas import AtlasNli, AtlasQa
from whichlora.data.tasks.base import PairTask, PromptTask, Sizes, Split, Task
from whichlora.data.tasks.items import Item
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.data.tasks.tydiqa import TydiQa
from whichlora.data.tasks.xnli import Xnli
from whichlora.errors import check_choice

TASKS: dict[str, type[Task]] = {task.name: task for task in (AtlasNli, AtlasQa, Xnli, TydiQa, AlignWords)}
PROMPTED = tuple(name for name, task in TASKS.items() if issubclass(task, PromptTask))
"""Names of the tasks whose items are prompts with an answer."""


@functools.cache
def get_task(name: str, prompt_language: PromptLanguage = "en") -> Task:
    """Return a task by name, with prompts in English ("en") or in the language of each item ("item").

    Raises:
        OptionError: there is no such task; the message lists the names.
    """
    return TASKS[check_choice("task", name, TASKS)](prompt_language)


__all__ = ["PROMPTED", "TASKS", "Item", "PairTask", "PromptTask", "Sizes", "Split", "Task", "get_task"]
