"""Imports tasks that are given as MODULE:CLASS."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whichlora.caller import caller_folder
from whichlora.data.tasks.base import Task
from whichlora.errors import OptionError, first_line

_ATTRIBUTES = ("name", "languages", "pooled", "parallel", "prompt_version", "sizes")


def import_task(name: str, option: str, *, stored: bool = False) -> type[Task]:
    """Import a class given as MODULE:CLASS, also from the folder of the caller, as `python -m` does.

    Args:
        option: the option that names the task, for messages.
        stored: whether the name was read from a model or a run, which others may have made. A module in the caller's
            folder, perhaps of the same archive, is then not imported, unless the folder is on PYTHONPATH.

    Raises:
        OptionError: the class cannot be imported, or is no task.
    """
    module, _, attribute = name.partition(":")
    if not stored and module not in sys.modules and (folder := str(caller_folder())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        if stored and module not in sys.modules:
            with _without_caller_folder():
                importlib.import_module(module)
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module's own code may raise anything
        advice = ""
        if stored and isinstance(error, ModuleNotFoundError):
            advice = "; install its package or add its folder to PYTHONPATH, as a stored name is not looked for here"
        raise OptionError(option, name, f"cannot be imported ({first_line(error)}){advice}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise OptionError(option, name, "is not a subclass of whichlora.data.tasks.Task")
    lacks = [*sorted(found.__abstractmethods__), *(part for part in _ATTRIBUTES if not hasattr(found, part))]
    if lacks:
        raise OptionError(option, name, f"lacks {', '.join(lacks)}, which a task needs")
    return found


@contextmanager
def _without_caller_folder() -> Iterator[None]:
    """Leave the folder of the caller out of the search path in this block.

    Python and `import_task` put it before the standard library; behind that are the folders of installed packages,
    one of which may be the same folder, installed with `pip install -e`.
    """
    folders = {Path.cwd().resolve(), caller_folder().resolve()}
    allowed = {Path(path).resolve() for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    before = sys.path[:]
    library = sysconfig.get_path("stdlib")
    end = before.index(library) if library in before else len(before)
    sys.path[:] = [path for i, path in enumerate(before) if i >= end or Path(path).resolve() not in folders - allowed]
    try:
        yield
    finally:
        sys.path[:] = before
