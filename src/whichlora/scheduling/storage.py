"""Opens the Optuna database through which workers share work: SQLite or a server, with heartbeats.

`python -m whichlora.scheduling.storage` creates the schema: run it before several workers start on an empty server.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import SCHEMA_VERSION
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from whichlora.announcements import announced
from whichlora.caller import caller_folder
from whichlora.errors import OptionError, number_from_environment
from whichlora.masking import mask_output
from whichlora.tracking.client import sqlite_file
from whichlora.tracking.sqlite import create_whole, is_writable, studies_state

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial, TrialState

warnings.filterwarnings("ignore", category=ExperimentalWarning, module="(optuna|whichlora|tuning)")

GRACE_SECONDS = int(number_from_environment("WHICHLORA_GRACE_SECONDS", 120, low=1))
"""A worker without a heartbeat for this long is declared dead."""
_SCHEMA_ATTEMPTS = 5

AfterDeath = Callable[["Study", "FrozenTrial"], None]
"""Callback for a trial that was failed because its worker died."""


def storage_url() -> str:
    """Return the URL of the shared database: `WHICHLORA_STORAGE`, or by default a SQLite file beside MLflow's.

    A PostgreSQL URL without a driver gets psycopg, which is installed with this package.
    """
    configured = os.environ.get("WHICHLORA_STORAGE")
    if configured:
        scheme, separator, rest = configured.partition("://")
        if scheme in ("postgres", "postgresql"):
            return f"postgresql+psycopg{separator}{rest}"
        file = storage_file(configured)
        return configured if file is None or "?" in configured else _url_of(file)
    database = sqlite_file()
    return _url_of((database.parent if database else caller_folder()) / "optuna.db")


def storage_file(url: str | None = None) -> Path | None:
    """Return the file of the shared database; None if it is on a server or in memory.

    Raises:
        OptionError: the URL is malformed.
    """
    parts = _parsed(url or storage_url())
    if parts.get_backend_name() != "sqlite" or not parts.database or parts.database == ":memory:":
        return None
    return None if parts.query.get("uri") else caller_folder() / parts.database


def check_writable() -> None:
    """Check that studies and queues can be changed.

    Raises:
        OptionError: This user cannot write to the SQLite file or its folder.
    """
    file = storage_file()
    if file is not None and not is_writable(file):
        allowed = "this user cannot write to the database or its folder; studies can be listed"
        raise OptionError("WHICHLORA_STORAGE", file, allowed)


def _url_of(file: Path) -> str:
    """Return the URL of a SQLite file; Optuna takes braces in a URL for placeholders."""
    url = URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)
    return url.replace("{", "{{").replace("}", "}}")


def _parsed(url: str) -> URL:
    """Parse a URL after filling in Optuna's placeholders.

    Raises:
        OptionError: it is malformed, or there is no driver for its database.
    """
    try:
        parts = make_url(url.format(SCHEMA_VERSION=SCHEMA_VERSION))
        parts.get_dialect().import_dbapi()
    except (SQLAlchemyError, LookupError, ValueError, AttributeError, ImportError) as error:
        allowed = f"must be the URL of a database, such as postgresql://user@host/name ({error})"
        raise OptionError("WHICHLORA_STORAGE", url, allowed) from error
    return parts


def connect(after_death: AfterDeath, url: str | None = None) -> RDBStorage:
    """Open the shared database, creating its schema if necessary.

    Processes that create the schema concurrently get in each other's way, so a SQLite file is created under a lock, and
    on a server the creation is retried. A complete SQLite file is not locked, so that it can be read in a folder of
    another user.

    Raises:
        OptionError: the URL is malformed, the server cannot be reached, the SQLite file cannot be created, or the
            database is not one of studies.
    """
    url = url or storage_url()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sqlite = _parsed(url).get_backend_name() == "sqlite"

    def open_storage() -> RDBStorage:
        return _Storage(
            url,
            heartbeat_interval=max(1, GRACE_SECONDS // 4),
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=after_death,
            engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
        )

    if sqlite:
        file = storage_file(url)
        if file is not None:
            create_whole(file, studies_state, _create_schema, option="WHICHLORA_STORAGE")
        return open_storage()
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    with announced("Connecting to the database of WHICHLORA_STORAGE."):
        for number in range(1, _SCHEMA_ATTEMPTS + 1):
            try:
                return open_storage()
            except Exception as error:  # the exception for a half-created schema depends on the driver
                if number == _SCHEMA_ATTEMPTS:
                    reason = " ".join(str(error.__cause__ or error).split())
                    allowed = f"the database cannot be opened: {reason} (tried {number} times)"
                    raise OptionError("WHICHLORA_STORAGE", url, allowed) from error
                time.sleep(1)
    raise AssertionError


def check_configured() -> None:
    """Open the database that `WHICHLORA_STORAGE` names, so that a refusal comes before anything is created elsewhere.

    Raises:
        OptionError: see `connect`.
    """
    if os.environ.get("WHICHLORA_STORAGE"):
        connect(lambda study, trial: None).remove_session()


def _create_schema(url: str) -> None:
    """Create the schema of a SQLite database that only this process knows, or complete it."""
    try:
        RDBStorage(url).engine.dispose()
    except (SQLAlchemyError, RuntimeError) as error:
        raise sqlite3.DatabaseError(" ".join(str(error).split())[:300]) from error


def stored_trial(study: Study, trial: Trial) -> FrozenTrial:
    """Return a trial as currently stored in the database.

    Uses private attributes: Optuna's public API returns single trials only by reading all trials of the study.
    """
    return study._storage.get_trial(trial._trial_id)


def heartbeats(study: Study) -> dict[int, str]:
    """Return the last heartbeats of the running trials of a study by trial number, to be compared for equality only."""
    query = (
        "SELECT t.number, h.heartbeat FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id "
        "WHERE t.study_id = :study AND t.state = 'RUNNING'"
    )
    storage: Any = getattr(study._storage, "_backend", study._storage)  # behind Optuna's cache
    with storage.engine.connect() as connection:
        return {number: str(last) for number, last in connection.execute(text(query), {"study": study._study_id})}


class _Storage(RDBStorage):
    """Optuna's storage with two fixes."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a heartbeat, ignoring a server that is briefly unreachable: the error would end Optuna's thread."""
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Claim or end a trial, on SQLite under a file lock: without row locks two workers could claim one trial."""
        with FileLock(f"{self._file}.claims.lock") if self._file else contextlib.nullcontext():
            return super().set_trial_state_values(trial_id, state, values)

    @property
    def _file(self) -> str | None:
        return self.engine.url.database if self.engine.url.get_backend_name() == "sqlite" else None


if __name__ == "__main__":
    mask_output()
    try:
        connect(lambda study, trial: None)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
