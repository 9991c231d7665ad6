"""The database in which workers agree who does what: Optuna's, with heartbeats, on SQLite or a server.

`python -m whichlora.scheduling.storage` creates its schema: run it before several workers start on an empty server.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage

from whichlora.tracking.client import sqlite_file

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, TrialState

warnings.filterwarnings("ignore", category=ExperimentalWarning, module="(optuna|whichlora|tuning)")

GRACE_SECONDS = int(os.environ.get("WHICHLORA_GRACE_SECONDS", "120"))
"""A worker that has not been heard of for so long is taken for dead."""
_SCHEMA_TRIES = 5

AfterDeath = Callable[["Study", "FrozenTrial"], None]
"""Is told the trial of a dead worker, which has just been failed."""


def storage_url() -> str:
    """Return the URL of the shared database: `WHICHLORA_STORAGE`, else a SQLite file beside MLflow's.

    A PostgreSQL URL without a driver gets the one that is installed with this package.
    """
    given = os.environ.get("WHICHLORA_STORAGE")
    if given:
        scheme, separator, rest = given.partition("://")
        return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else given
    database = sqlite_file()
    return f"sqlite:///{(database.parent if database else Path.cwd()) / 'optuna.db'}"


def connect(after_death: AfterDeath, url: str | None = None) -> RDBStorage:
    """Return the shared database, whose schema exists from now on.

    Processes that create it at once hinder each other: a SQLite file is created under a lock, a server's schema is
    tried again.
    """
    url = url or storage_url()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def open_storage() -> RDBStorage:
        return _Storage(
            url,
            heartbeat_interval=max(1, GRACE_SECONDS // 4),
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=after_death,
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True},
        )

    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            return open_storage()
    for left in reversed(range(_SCHEMA_TRIES)):
        try:
            return open_storage()
        except Exception:  # what a half-made schema raises depends on the driver
            if not left:
                raise
            time.sleep(1)
    raise AssertionError


class _Storage(RDBStorage):
    """Optuna's storage, with two things mended."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that a worker lives, outlasting a moment without the server: Optuna's thread would end for good."""
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Claim or end a trial. SQLite has no row locks, without which two workers can claim the same one."""
        with FileLock(f"{self._file}.claims.lock") if self._file else contextlib.nullcontext():
            return super().set_trial_state_values(trial_id, state, values)

    @property
    def _file(self) -> str | None:
        return self.engine.url.database if self.engine.url.get_backend_name() == "sqlite" else None


if __name__ == "__main__":
    connect(lambda study, trial: None)
