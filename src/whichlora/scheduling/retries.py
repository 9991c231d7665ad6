"""Repeats work while a server or database is away."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

Result = TypeVar("Result")
POLL_SECONDS = 2.0
"""How often a worker that has nothing to do looks again: one elsewhere may die and leave its trial."""
_FAILURES = 60
"""So many failures of the database in a row end a worker: with the pauses between them, some minutes."""


def with_retries(work: Callable[[], Result], *, poll: float = POLL_SECONDS) -> Result:
    """Return what `work`, which may be repeated, returns, in spite of moments without a server or a database."""
    for _ in range(_FAILURES - 1):
        try:
            return work()
        except (StorageInternalError, SQLAlchemyError, MlflowException, OSError) as error:
            print(f"No answer ({type(error).__name__}: {error}); trying again.", file=sys.stderr)
            time.sleep(poll)
    return work()


def repeat_until_done(
    step: Callable[[], bool], *, poll: float = POLL_SECONDS, stop: Callable[[], bool] = lambda: False
) -> None:
    """Call `step` until it returns False or `stop()` says that this process cannot go on, in spite of lost connections.

    Optuna refuses the result of a worker that was taken for dead, and raises several kinds of error where the server is
    away as it takes a result. The work is then done again, and found to be done.
    """
    failures = 0
    while not stop():
        try:
            if not step():
                return
            failures = 0
        except Exception as error:
            failures += 1
            if failures == _FAILURES:
                raise
            print(f"The database does not answer as it should ({type(error).__name__}: {error}).", file=sys.stderr)
            time.sleep(poll)
