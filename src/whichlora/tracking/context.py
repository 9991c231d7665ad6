"""Tags of who started a run, with which command and from which commit, by MLflow's own providers of context."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_USER

import whichlora
from whichlora.masking import masked

GIT_DIRTY = "whichlora.git_dirty"
"""Tag of a run whose code was read from a checkout: whether files in it differed from the commit, `true` or `false`."""


@functools.cache
def context_tags() -> Mapping[str, str]:
    """Return `mlflow.user`, `mlflow.source.name` and `.type` and, from a checkout, the commit and `GIT_DIRTY`.

    They are read once in a process. The commit is that of the code, wherever the command was called: MLflow's provider
    would take the repository around the script, which for an installed package is one of the user's own. A package in
    an environment that a repository ignores has no commit.
    """
    tags = dict(resolve_tags(ignore=[GitRunContext]))  # type: ignore[list-item]  # it takes classes
    if tags.get(MLFLOW_SOURCE_NAME) == sys.argv[0]:  # no other provider has set it
        tags[MLFLOW_SOURCE_NAME] = _command()
    tags.setdefault(MLFLOW_USER, "unknown")
    folder = str(Path(whichlora.__file__).parent)
    logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)  # a machine without git needs no warning
    commit = get_git_commit(folder)
    if commit is not None:
        tags[MLFLOW_GIT_COMMIT] = commit
        tags[GIT_DIRTY] = str(_differs(folder)).lower()
    return {key: masked(value) for key, value in tags.items()}


def _command() -> str:
    """Return the running command, such as `whichlora run` or the module `tuning.tune`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__").removesuffix(".command")
    script, *arguments = sys.argv
    name = Path(script).name
    return f"{name} {arguments[0]}" if name == "whichlora" and arguments and arguments[0][:1].isalpha() else name


def _differs(folder: str) -> bool:
    """Return whether files of the repository around `folder` differ from its commit; new files do not count."""
    command = ["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"]
    return bool(subprocess.run(command, capture_output=True, check=False).stdout.strip())
