"""Guards optuna-dashboard, which has no password and accepts requests under every host name.

`gunicorn 'whichlora.scheduling.dashboard:app()'` serves it: docker-compose.yml. Without the check of the host, a web
page could reach it by resolving its own name to a loopback address.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from optuna.storages import RDBStorage

from whichlora.scheduling.storage import storage_url

USER = "dashboard"
_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def app() -> _Application:
    """Return the dashboard of the database `WHICHLORA_STORAGE`.

    `DASHBOARD_PASSWORD` is the password of the user `dashboard`. `DASHBOARD_HOSTS` are the host names, with ports,
    under which requests are accepted, separated by commas; `*` stands for any text.
    """
    dashboard = importlib.import_module("optuna_dashboard")
    database = RDBStorage(storage_url(), skip_table_creation=True, engine_kwargs={"pool_pre_ping": True})
    hosts = [host.strip() for host in os.environ["DASHBOARD_HOSTS"].split(",")]
    return guarded(dashboard.wsgi(database), password=os.environ["DASHBOARD_PASSWORD"], hosts=hosts)


def guarded(application: _Application, *, password: str, hosts: Sequence[str]) -> _Application:
    """Return a WSGI application that passes on only requests with the password, a known host and no other origin."""
    if not password:
        raise ValueError("the password is empty")

    def is_known(host: str | None) -> bool:
        return bool(host) and any(fnmatchcase(str(host).lower(), pattern.lower()) for pattern in hosts)

    def check(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if not is_known(environ.get("HTTP_HOST")) or (origin is not None and not is_known(urlsplit(origin).netloc)):
            return _refuse(start_response, "403 Forbidden", [])
        if not _is_authorized(environ.get("HTTP_AUTHORIZATION", ""), password):
            challenge = ("WWW-Authenticate", 'Basic realm="optuna-dashboard", charset="UTF-8"')
            return _refuse(start_response, "401 Unauthorized", [challenge])
        return application(environ, start_response)

    return check


def _refuse(start_response: Callable[..., Any], status: str, headers: list[tuple[str, str]]) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [status.encode()]


def _is_authorized(header: str, password: str) -> bool:
    kind, _, encoded = header.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{USER}:{password}".encode())
