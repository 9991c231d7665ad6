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
from whichlora.errors import in_a_line

Result = TypeVar("Result")
POLL_SECONDS = 2.0
"""Seconds between database polls of an idle worker, which takes over if another worker dies."""
_FAILURES = 60
"""Consecutive database errors after which a worker gives up, in some minutes including the pauses."""
_LINE_SECONDS = 30.0
"""Seconds between two lines about the same outage."""


def with_retries(work: Callable[[], Result], *, poll: float = POLL_SECONDS) -> Result:
    """Return `work()`, retrying while a server or database is unreachable; `work` must be safe to repeat.

    Raises:
        Exception: the last of `_FAILURES` consecutive errors.
    """
    outage = _Outage(poll)
    for _ in range(_FAILURES - 1):
        try:
            result = work()
        except (StorageInternalError, SQLAlchemyError, MlflowException, OSError) as error:
            outage.failed(error)
            time.sleep(poll)
        else:
            outage.over()
            return result
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
    outage = _Outage(poll)
    while not stop():
        termination.check()
        try:
            if not step():
                return
            outage.over()
        except Exception as error:
            if outage.failures == _FAILURES - 1:
                raise
            outage.failed(error)
            time.sleep(poll)


class _Outage:
    """Counts consecutive errors, and says what is retried and how often, without a line for each error."""

    def __init__(self, poll: float) -> None:
        self.failures = 0
        self._poll = poll
        self._began = self._said = 0.0

    def failed(self, error: Exception) -> None:
        """Count an error; print a line for the first one and then every `_LINE_SECONDS`."""
        now = time.monotonic()
        if not self.failures:
            self._began = now
        self.failures += 1
        if self.failures == 1 or now - self._said > _LINE_SECONDS:
            self._said = now
            reason = in_a_line(f"{type(error).__name__}: {error}")
            left = f"up to {_FAILURES - self.failures} more times, every {self._poll:g} s"
            print(f"warning: the server or database cannot be used ({reason}); trying again {left}.", file=sys.stderr)

    def over(self) -> None:
        """Say that the server or database can be used again, if it could not."""
        if self.failures:
            seconds = time.monotonic() - self._began
            print(f"The server or database can be used again, after {seconds:.0f} s.", file=sys.stderr)
        self.failures = 0
