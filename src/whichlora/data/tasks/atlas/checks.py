"""Checks the arguments of `load` for atlas tasks."""

from __future__ import annotations

from whichlora.data.tasks.base import SPLITS, Task
from whichlora.errors import OptionError, check_choice


def check(task: Task, language: str, split: str, data_dir: str | None, difficulty: str) -> None:
    """Check the arguments of `load`.

    Raises:
        OptionError: the task has no such language, split or difficulty, or `data_dir` is set.
    """
    check_choice("language", language, task.languages)
    check_choice("split", split, SPLITS)
    check_choice("difficulty", difficulty, task.difficulties)
    if data_dir is not None:
        raise OptionError("data_dir", data_dir, "atlas tasks are packaged and take no folder; remove the option")
