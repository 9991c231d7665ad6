"""Checks that the tracking server or the database on a server can be used, before anything else depends on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from whichlora.errors import OptionError

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


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
    retries = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        _try(uri, lambda: MlflowClient().search_experiments(max_results=1))
    finally:
        if retries is None:
            del os.environ[_RETRIES]


def _try(uri: str, request: Callable[[], object]) -> None:
    try:
        request()
    except (MlflowException, SQLAlchemyError, OSError, ValueError, ImportError) as error:
        raise OptionError("MLFLOW_TRACKING_URI", uri, f"cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error.__cause__ if isinstance(error, SQLAlchemyError) and error.__cause__ else error).split())
    if "maintenance mode" in text:
        return (
            "it is a folder of an earlier MLflow; convert it with `mlflow migrate-filestore`, or set "
            "MLFLOW_TRACKING_URI=sqlite:///mlflow.db"
        )
    return text[:400]
