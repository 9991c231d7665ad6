"""Retries work while a server or database is unreachable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from whichlora import termination
from whichlora.errors import printable
from whichlora.masking import masked

Result = TypeVar("Result")
POLL_SECONDS = 2.0
"""Seconds between database polls of an idle worker, which takes over if another worker dies."""
_FAILURES = 60
"""Consecutive database errors after which a worker gives up, in some minutes including the pauses."""


def with_retries(work: Callable[[], Result], *, poll: float = POLL_SECONDS) -> Result:
    """Return `work()`, retrying while a server or database is unreachable; `work` must be safe to repeat.

    Raises:
        Exception: the last of `_FAILURES` consecutive errors.
    """
    for _ in range(_FAILURES - 1):
        try:
            return work()
        except (StorageInternalError, SQLAlchemyError, MlflowException, OSError) as error:
            print(f"Server or database not reachable ({_line(error)}), retrying.", file=sys.stderr)
            time.sleep(poll)
    return work()


def repeat_until_done(
    step: Callable[[], bool], *, poll: float = POLL_SECONDS, stop: Callable[[], bool] = lambda: False
) -> None:
    """Call `step` until it returns False or `stop()` returns True, retrying after lost connections.

    Optuna rejects the result of a worker that was declared dead, and raises several kinds of errors if the server is
    unreachable while a result is stored. After any exception `step` is therefore called again; it must recognise
    finished work.

    Raises:
        Exception: the last of `_FAILURES` consecutive errors.
        Terminated: a signal ends this process.
    """
    failures = 0
    while not stop():
        termination.check()
        try:
            if not step():
                return
            failures = 0
        except Exception as error:
            failures += 1
            if failures == _FAILURES:
                raise
            print(f"Database error ({_line(error)}), retrying.", file=sys.stderr)
            time.sleep(poll)


def _line(error: Exception) -> str:
    return printable(masked(f"{type(error).__name__}: {' '.join(str(error).split())}"))
