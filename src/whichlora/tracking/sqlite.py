"""Locates SQLite databases, creates them whole or not at all, and determines the state of their schema.

MLflow and Optuna create their schemas statement by statement. A kill or a full disk in between would leave a database
on which every later command fails. A schema is therefore created in a temporary file and moved into place at the end.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock, Timeout

from whichlora.announcements import announce, announced
from whichlora.caller import caller_folder
from whichlora.errors import OptionError

_BUSY_SECONDS = 60.0
_MAGIC = b"SQLite format 3\0"

State = Literal["absent", "complete", "older", "newer", "incomplete", "foreign"]
"""State of a database: it does not exist or is empty; has the schema of the installed library; has an earlier or an
unknown schema; was left half created; or is a file of another kind."""


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite tracking URI; None for any other URI. A relative one is relative to the caller."""
    if not uri.startswith("sqlite:///"):
        return None
    return caller_folder() / unquote(uri.removeprefix("sqlite:///").partition("?")[0])


def artifact_folder(uri: str) -> Path | None:
    """Return the local folder of an artifact URI or path; None if it is not on this machine."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return Path(unquote(parts.path) if parts.scheme else uri).absolute()


@contextmanager
def schema_lock(file: Path) -> Iterator[None]:
    """Hold the lock for creating the schema, which two processes at once would leave permanently incomplete.

    Raises:
        OSError: no file can be created beside the database.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    path = Path(f"{file}.lock")
    path.touch()  # raises where no file can be created; FileLock would wait for ever in some such places
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        announce(f"Waiting: another process is creating or changing the database {file}.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing database for reading only: it may be in a folder in which this user cannot write.

    What a process wrote that was killed is rolled back first, which needs the right to write.
    """
    address = file.absolute().as_uri()
    with closing(sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.OperationalError:
            with closing(sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=_BUSY_SECONDS)) as recovery:
                recovery.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        yield connection


def is_sqlite(file: Path) -> bool:
    """Return whether a file begins as SQLite databases do."""
    with file.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def is_writable(file: Path) -> bool:
    """Return whether this user can write to a database, which needs a journal beside it."""
    return os.access(file if file.exists() else file.parent, os.W_OK) and os.access(file.parent, os.W_OK)


def table_names(database: sqlite3.Connection) -> set[str]:
    """Return the names of the tables of a database."""
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def tracking_state(file: Path) -> State:
    """Return the state of a tracking database, without importing MLflow, which takes seconds."""
    return _state(file, _tracking_schema)


def studies_state(file: Path) -> State:
    """Return the state of an Optuna database. Optuna completes a schema that was left half created."""
    return _state(file, _studies_schema)


def _state(file: Path, schema_state: Callable[[sqlite3.Connection, set[str]], State]) -> State:
    """Return the state of a database; `schema_state` tells it from a connection and the tables, if there are any."""
    if not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return "absent"
    if not file.is_file() or not is_sqlite(file):
        return "foreign"
    try:
        with reading(file) as database:
            tables = table_names(database)
            return schema_state(database, tables) if tables else "absent"
    except sqlite3.DatabaseError:
        return "foreign"


def _tracking_schema(database: sqlite3.Connection, tables: set[str]) -> State:
    if "experiments" not in tables:
        return "incomplete" if tables == {"alembic_version"} else "foreign"
    if "alembic_version" not in tables:
        return "incomplete"
    revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
    if revision == (_latest_revision(),):
        return "complete"
    # MLflow creates the first experiment once the schema is complete.
    if revision is None or database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is None:
        return "incomplete"
    return "older" if revision[0] in _revisions()[0] else "newer"


def _studies_schema(database: sqlite3.Connection, tables: set[str]) -> State:
    if not tables & {"studies", "version_info", "alembic_version"}:
        return "foreign"
    versions = {"version_info", "alembic_version"} & tables
    rows = [database.execute(f"SELECT 1 FROM {table}").fetchone() for table in versions]
    return "complete" if len(rows) == 2 and all(rows) else "older"


@lru_cache(maxsize=1)
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """Return MLflow's migrations, and those of them that another one follows."""
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    texts = [path.read_text() for path in Path(package.origin).parent.glob("store/db_migrations/versions/*.py")]
    revisions, predecessors = (
        frozenset(
            match[1] for text in texts if (match := re.search(rf'^{name}\b.*?= *["\'](\w+)["\']', text, re.MULTILINE))
        )
        for name in ("revision", "down_revision")
    )
    return revisions, predecessors


def _latest_revision() -> str | None:
    """Return the last of MLflow's migrations; a database at an earlier one is incomplete or of an older MLflow."""
    revisions, predecessors = _revisions()
    return min(revisions - predecessors, default=None)


def create_whole(file: Path, state: Callable[[Path], State], create: Callable[[str], None], *, option: str) -> None:
    """Create or migrate the schema of a database, so that it is complete or unchanged if this process is killed.

    Args:
        file: the database.
        state: returns the state of a database; a complete one is left alone.
        create: creates or migrates the schema of the database with the given URL, and closes it.
        option: name of the setting that names the database, for error messages.

    Raises:
        OptionError: the database cannot be created, is not one, or was left half created by an earlier version.
    """
    if state(file) == "complete":
        return
    try:
        with schema_lock(file):
            for leftover in file.parent.glob(f".{_escaped(file.name)}.*.new*"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            current = state(file)
            if current in ("absent", "older"):
                _create(file, create, migrate=current == "older")
    except (OSError, sqlite3.Error) as error:
        current = state(file)
        if current in ("absent", "older"):
            raise OptionError(option, file, f"the database cannot be created or upgraded: {error}") from error
    _check(file, current, option)


def _check(file: Path, state: State, option: str) -> None:
    if state == "incomplete":
        advice = (
            "the database has an incomplete schema and no results: a command was killed while creating it, or another "
            "program is creating it now; if none is running, delete the file and repeat the command"
        )
        raise OptionError(option, file, advice)
    if state == "newer":
        advice = "the database has the schema of another version of MLflow; install that version or use another folder"
        raise OptionError(option, file, advice)
    if state == "foreign":
        raise OptionError(
            option, file, "is not a database of runs or studies; move the file away or use another folder"
        )


def _create(file: Path, create: Callable[[str], None], *, migrate: bool) -> None:
    # The name beside the database may contain characters that have a meaning in a URL, so the schema is created
    # elsewhere.
    with tempfile.TemporaryDirectory(prefix="whichlora-") as scratch:
        draft = Path(scratch) / "draft.db"
        if migrate:
            _copy(file, draft)
        with announced(f"{'Upgrading' if migrate else 'Creating'} the database {file}.", logged=True):
            create(f"sqlite:///{quote(str(draft))}")
        if file.exists():  # other programs may have it open: SQLite replaces the content in one transaction
            _copy(draft, file)
            return
        beside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.new")
        try:
            _copy(draft, beside)
            flush(beside)
            try:
                os.link(beside, file)  # fails if another program has created the database in the meantime
            except FileExistsError:
                return
            except OSError:  # a file system without hard links
                beside.rename(file)
            flush(file.parent)
        finally:
            beside.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with reading(source) as origin, closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as copy:
        origin.backup(copy)


def flush(path: Path) -> None:
    """Write a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
