"""Databases in archives: what they may contain, and where they say that artifacts are.

A database from elsewhere is not trusted: MLflow reads and writes wherever its locations point, runs the jobs and
scorers that it stores, and SQLite runs its triggers.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from whichlora.tracking.sqlite import artifact_folder, is_sqlite, table_names

ARTIFACTS = ("mlartifacts", "mlruns")
"""Folders of artifacts beside the database: those of this package, and those of experiments created by MLflow."""
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("workspaces", "default_artifact_root"),
    ("workspaces", "trace_archival_location"),
)
_LOCATION_TAGS = ("experiment_tags", "tags", "trace_tags", "trace_request_metadata", "logged_model_tags")
_LOCATION_KEYS = ("mlflow.artifactLocation", "mlflow.trace.archiveLocation")
_INTERNAL = ("models:/", "runs:/")
"""Beginnings of locations that refer to a row of the same database."""
_KEPT = frozenset(
    [
        "alembic_version",
        "experiments",
        "experiment_tags",
        "runs",
        "tags",
        "params",
        "metrics",
        "latest_metrics",
        "datasets",
        "inputs",
        "input_tags",
        "logged_models",
        "logged_model_params",
        "logged_model_tags",
        "logged_model_metrics",
        "registered_models",
        "registered_model_tags",
        "registered_model_aliases",
        "model_versions",
        "model_version_tags",
        "trace_info",
        "trace_tags",
        "trace_metrics",
        "trace_request_metadata",
        "spans",
        "span_metrics",
        "assessments",
        "workspaces",
    ]
)
"""Tables of results. Others hold secrets, addresses and code that a server runs."""
_TABLES = {"mlflow.db": {"alembic_version", "experiments", "runs"}, "optuna.db": {"studies", "trials"}}
_HARMLESS_TRIGGER = re.compile(r"(?:(?!--|/\*)[^;])*\bBEGIN\s+SELECT RAISE\(ABORT, '[^';\n]*'\);\s+END\s*")
"""A trigger that does nothing but reject a change; MLflow has one."""


class Location(NamedTuple):
    """Where a row of a database says that artifacts are."""

    table: str
    column: str
    row: int
    uri: object


class UnsafeDatabaseError(Exception):
    """A database contains what results do not; the message says what."""


@contextmanager
def edit(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database, commit the changes, and vacuum it so that the old values do not remain in the file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_mode = DELETE")
        yield connection
        connection.commit()
        connection.execute("VACUUM")


def check(database: Path) -> None:
    """Check that a file is a SQLite database of results, named as such, that runs nothing when it is read or edited.

    Raises:
        UnsafeDatabaseError: it is not.
    """
    name = database.name
    if not is_sqlite(database):
        raise UnsafeDatabaseError(f"{name} is not a SQLite database")
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            entries = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise UnsafeDatabaseError(f"{name} is damaged: {error}") from error
    if damage != ("ok",):
        raise UnsafeDatabaseError(f"{name} is damaged: {damage[0]}")
    for kind, entry, text in entries:
        virtual = kind == "table" and re.match(r"\s*CREATE\s+VIRTUAL", str(text), re.IGNORECASE)
        trigger = kind == "trigger" and not _HARMLESS_TRIGGER.fullmatch(str(text))
        if kind not in ("table", "index", "trigger") or virtual or trigger:
            raise UnsafeDatabaseError(f"{name} contains the {'virtual ' * bool(virtual)}{kind} {entry!r}")
    if not _TABLES[name] <= {entry for kind, entry, _ in entries if kind == "table"}:
        raise UnsafeDatabaseError(f"{name} is not a database of {'runs' if name == 'mlflow.db' else 'studies'}")


def drop_foreign_rows(tracking: sqlite3.Connection) -> None:
    """Empty the tables that are not part of results."""
    for table in table_names(tracking):
        if table not in _KEPT and not table.startswith("sqlite_"):
            tracking.execute(f'DELETE FROM "{table.replace(chr(34), chr(34) * 2)}"')


def locations(tracking: sqlite3.Connection) -> list[Location]:
    """Return every location of artifacts in a tracking database, except empty and internal ones."""
    tables = table_names(tracking)
    found = []
    for table, column in _LOCATIONS:
        if table in tables and column in _columns(tracking, table):
            rows = tracking.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} != ''")
            found += [Location(table, column, row, uri) for row, uri in rows]
    marks = ", ".join("?" * len(_LOCATION_KEYS))
    for table in _LOCATION_TAGS:
        key, column = ("tag_key", "tag_value") if table == "logged_model_tags" else ("key", "value")
        if table in tables:
            rows = tracking.execute(f"SELECT rowid, {column} FROM {table} WHERE {key} IN ({marks})", _LOCATION_KEYS)
            found += [Location(table, column, row, uri) for row, uri in rows]
    return [entry for entry in found if not _is_internal(entry)]


def model_locations(tracking: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the locations of the artifacts of each logged model and of its run."""
    if not {"logged_models", "runs"} <= table_names(tracking):
        return []
    return tracking.execute(
        "SELECT m.artifact_location, r.artifact_uri FROM logged_models m JOIN runs r ON r.run_uuid = m.source_run_id "
        "WHERE m.artifact_location != '' AND r.artifact_uri != ''"
    ).fetchall()


def set_location(tracking: sqlite3.Connection, location: Location, uri: str) -> None:
    """Change a location."""
    update = f"UPDATE {location.table} SET {location.column} = ? WHERE rowid = ?"
    tracking.execute(update, (uri, location.row))


def shorten_sources(tracking: sqlite3.Connection) -> None:
    """Name the files of data sets relative to the folder given as `data_dir`, and those elsewhere by their names."""
    if "datasets" not in table_names(tracking):
        return
    for row, text in tracking.execute("SELECT rowid, dataset_source FROM datasets").fetchall():
        if short := _short_source(text):
            tracking.execute("UPDATE datasets SET dataset_source = ? WHERE rowid = ?", (short, row))


def _short_source(text: str) -> str | None:
    """Return the source of a data set without absolute paths; None if it has none."""
    try:
        source = json.loads(text)
    except ValueError:  # in words
        return None
    if not isinstance(source, dict):
        return None
    folder = source.get("data_dir", "")
    short = {key: _short_path(value, "") for key, value in source.items()}
    if isinstance(read := source.get("read"), dict):
        short["read"] = {_short_path(path, folder): digest for path, digest in read.items()}
    return json.dumps(short) if short != source else None


def _short_path(value: object, folder: str) -> object:
    """Return an absolute path relative to a folder it is in, otherwise its last part; anything else as it is."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path = Path(value)
    return path.relative_to(folder).as_posix() if folder and path.is_relative_to(folder) else path.name


def relative_location(uri: object, folder: Path) -> str | None:
    """Return a location of artifacts relative to the folder of its database; None if it is elsewhere.

    Links are followed, so that what a link leads to has to be in the folder too.
    """
    try:
        path = artifact_folder(str(uri))
        inside = path.resolve().relative_to(folder.resolve()) if path is not None else None
    except (ValueError, OSError, RuntimeError):  # not a URI, outside of the folder, or links that lead in a circle
        return None
    return inside.as_posix() if inside is not None and inside.parts and inside.parts[0] in ARTIFACTS else None


def packed_location(uri: object) -> str:
    """Return a location in an archive, which has to be relative and within the folders of artifacts.

    Raises:
        UnsafeDatabaseError: it is not.
    """
    parts = PurePosixPath(uri).parts if isinstance(uri, str) and uri.isprintable() and "\\" not in uri else ()
    if not parts or parts[0] not in ARTIFACTS or ".." in parts:
        raise UnsafeDatabaseError(f"the location of artifacts {ascii(uri)[:100]} is outside of the archive")
    return str(uri)


def _is_internal(location: Location) -> bool:
    return location.table == "model_versions" and str(location.uri).startswith(_INTERNAL)


def _columns(tracking: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in tracking.execute(f"PRAGMA table_info({table})")}
