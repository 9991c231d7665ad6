"""What `load` of an atlas task may be asked for."""

from __future__ import annotations

from whichlora.data.tasks.base import SPLITS, Task
from whichlora.errors import OptionError, choose


def check(task: Task, language: str, split: str, data_dir: str | None, difficulty: str) -> None:
    """Check the options of `load`.

    Raises:
        OptionError: the language, split or difficulty is none of the task's, or a folder is given.
    """
    choose("language", language, task.languages)
    choose("split", split, SPLITS)
    choose("difficulty", difficulty, task.difficulties)
    if data_dir is not None:
        raise OptionError("data_dir", data_dir, "atlas tasks are packaged and take no folder")
