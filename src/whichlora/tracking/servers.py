"""Checks that the tracking server or the database on a server can be used, before anything else depends on it."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from whichlora.announcements import announced
from whichlora.errors import OptionError, in_a_line

_FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Settings of the first request, which else takes minutes to fail; those that the user has set are kept."""
_CAUSE = re.compile(r"\[Errno -?\d+\] ([^\"')]+)|(Read timed out)")
"""What is wrong, in the messages of requests and urllib3."""


@cache
def check_server(uri: str) -> None:
    """Send a first request, once in a process, and without MLflow's minutes of retries.

    Raises:
        OptionError: there is no such server, it cannot be reached, refuses the user, or has another schema.
    """
    if uri.partition("://")[0] in ("", "file", uri):
        _try(uri, MlflowClient)
        return
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    if not uri.startswith(("http://", "https://")):
        _try(uri, lambda: sqlalchemy.create_engine(uri).connect().close())
    with _quick():
        _try(uri, lambda: MlflowClient().search_experiments(max_results=1))
    _say_retries()


@contextmanager
def _quick() -> Iterator[None]:
    unset = [name for name in _FIRST_REQUEST if name not in os.environ]
    os.environ.update({name: _FIRST_REQUEST[name] for name in unset})
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def _try(uri: str, request: Callable[[], object]) -> None:
    start = time.monotonic()
    try:
        with announced(f"Connecting to {uri}."):
            request()
    except (MlflowException, SQLAlchemyError, OSError, ValueError, ImportError) as error:
        reason = _reason(error, time.monotonic() - start)
        raise OptionError("MLFLOW_TRACKING_URI", uri, f"cannot be used: {reason}") from error


def _reason(error: Exception, seconds: float) -> str:
    text = " ".join(str(error.__cause__ if isinstance(error, SQLAlchemyError) and error.__cause__ else error).split())
    if "maintenance mode" in text:
        return (
            "it is a folder of an earlier MLflow; convert it with `mlflow migrate-filestore`, or set "
            "MLFLOW_TRACKING_URI=sqlite:///mlflow.db"
        )
    if "Max retries exceeded" in text and (cause := _cause(text)):
        return (
            f"no answer after {seconds:.0f} s of tries ({cause}); start the server, or unset the variable for a "
            "database in the current folder"
        )
    return text[:400]


def _cause(text: str) -> str | None:
    found = _CAUSE.search(text)
    return found and (found[1] or found[2])


@cache
def _say_retries() -> None:
    """Say from now on that a server has stopped answering and how long MLflow retries, which is minutes of silence."""
    logging.getLogger("urllib3.connectionpool").addHandler(_Retries())


class _Retries(logging.Handler):
    """Prints a line for each retry of a request to the tracking server by the main thread.

    Threads beside it, such as that of system metrics, say for themselves what they have lost.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line if urllib3 says that it retries."""
        if not str(record.msg).startswith("Retrying (") or threading.current_thread() is not threading.main_thread():
            return
        retry, error, address = record.args  # type: ignore[misc]
        if "/mlflow/" not in str(address):
            return
        done = len(retry.history)  # type: ignore[union-attr]
        left = range(done, done + retry.total)  # type: ignore[union-attr]
        seconds = sum(min(retry.backoff_max, retry.backoff_factor * 2**n) for n in left)  # type: ignore[union-attr]
        reason = _cause(str(error)) or in_a_line(error, 100)
        how_long = f"about {seconds:.0f} s more (tries left: {len(left)})" if left else "the last time"
        text = f"the tracking server does not answer ({reason}); MLflow retries for {how_long}."
        print(f"warning: {text}", file=sys.stderr)
