"""Explains errors of the environment, such as a full disk or a server that is away, in one line."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from whichlora.errors import in_a_line

_SAYS = re.compile(r"[Nn]o space left|os error \d+|[Dd]isk quota|File too large|disk is full|readonly database")
"""What libraries say of a disk on which they cannot write, in exceptions without a number."""
_TORCH_WRITER = re.compile(r"inline_container.*(unexpected pos|failed writing)|PytorchStreamWriter failed", re.DOTALL)
"""What torch says when a write fails, which is not the reason."""
_MODULES = ("mlflow.exceptions", "sqlalchemy.exc", "optuna.exceptions", "sqlite3", "requests.exceptions", "psycopg")
"""Modules of the exceptions that tell of servers and databases."""
_LENGTH = 500


def explain(error: BaseException) -> str | None:
    """Return one line about an error that the environment causes, or None for any other error."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno != errno.EPIPE:
            place = f"{cause.filename}: " if cause.filename is not None else ""
            return in_a_line(f"{place}{cause.strerror or cause}", _LENGTH)
    for cause in _chain(error):
        if type(cause).__module__.startswith(_MODULES) or isinstance(cause, ConnectionError):
            return in_a_line(f"the server or database cannot be used: {cause}", _LENGTH)
        if isinstance(cause, RuntimeError) and _TORCH_WRITER.search(str(cause)):
            return in_a_line(f"a checkpoint cannot be written; is the disk full? ({cause})", _LENGTH)
        if _SAYS.search(str(cause)):
            return in_a_line(str(cause), _LENGTH)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
