"""Resolves the paths that users give, relative to where they called the command.

`mlflow run` changes to the folder of the project, or of its clone. The entry points in `MLproject` pass on the id of
the process that called them, whose current folder is that of the user.
"""

from __future__ import annotations

import os
from pathlib import Path

_LAUNCHER = "WHICHLORA_LAUNCHER"
_FOLDER = "WHICHLORA_CALLER"
"""Environment variable for workers, which may be on another machine."""


def caller_folder() -> Path:
    """Return the folder in which the user called `mlflow run` or the command."""
    launcher = os.environ.pop(_LAUNCHER, "")
    if launcher.isdecimal():
        import psutil

        try:
            os.environ[_FOLDER] = psutil.Process(int(launcher)).cwd()
        except psutil.Error:  # `mlflow run` has ended
            os.environ.pop(_FOLDER, None)
    folder = os.environ.get(_FOLDER)
    return Path(folder) if folder else Path.cwd()


def given_path(text: str) -> Path:
    """Return a path that a user gave as an option or in an environment variable.

    `~` and `~user` are replaced by a home; one of an unknown user stays as it is.
    """
    path, folder = Path(os.path.expanduser(text)), caller_folder()  # noqa: PTH111, pathlib raises for an unknown user
    return path if folder == Path.cwd() else folder / path
