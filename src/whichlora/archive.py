"""Packs the results of a folder into one file and unpacks them elsewhere, where they can be viewed and resumed.

python -m whichlora.archive pack study.tar.xz
python -m whichlora.archive unpack study.tar.xz --folder study

A SQLite tracking database refers to the artifacts of its runs by absolute paths. These paths are relative in an archive
and become absolute again on unpacking, so that `mlflow ui`, `analyze` and unfinished experiments or studies work there.
"""

from __future__ import annotations

import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from whichlora.command_line import BOOLEANS, FILE, FOLDER, Command, Group, exit_with
from whichlora.config.cli import report_option_error
from whichlora.errors import OptionError, check_choice, check_folder
from whichlora.tracking.sqlite import artifact_folder, database_file, schema_lock

TRACKING, STUDIES = "mlflow.db", "optuna.db"
_LOCATIONS = (("experiments", "artifact_location", "experiment_id"), ("runs", "artifact_uri", "run_uuid"))
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
_ADAPTER = "adapter"
"""Artifact folder of a run that is packed only on request: adapters would be most of an archive's size."""
COMMAND = Group(
    "archive",
    "Pack results into one file, or unpack them elsewhere.",
    (
        Command(
            "pack",
            "Write the runs of a SQLite tracking database, their artifacts, and the studies beside it to the file "
            "ARCHIVE (.tar.xz, .tar.gz or .tar).\n\nThe database is that of MLFLOW_TRACKING_URI, by default "
            "mlflow.db in the current folder.",
            {"adapters": ("false", "Whether to include the trained adapters, which are large: true or false.")},
            positional={"archive": FILE},
            choices={"adapters": BOOLEANS},
            examples=("whichlora archive pack study.tar.xz",),
        ),
        Command(
            "unpack",
            "Unpack the file ARCHIVE into a folder in which mlflow ui, analyze and unfinished experiments find the "
            "results.",
            {"folder": (None, "Folder to unpack into, new or empty.")},
            positional={"archive": FILE},
            choices={"folder": FOLDER},
            examples=("whichlora archive unpack study.tar.xz --folder study",),
        ),
    ),
)


def pack(archive: Path, *, database: Path, adapters: bool = False) -> str:
    """Write the runs of a tracking database, their artifacts, and the studies beside it to an archive.

    The databases are copied as consistent snapshots; other processes may write to them in the meantime.

    Args:
        archive: the file to write; its suffix chooses the compression.
        database: the SQLite tracking database.
        adapters: whether to include the trained adapters.

    Returns:
        A summary for the user.

    Raises:
        OptionError: the database does not exist.
    """
    _check_database(database)
    folder = database.parent
    with tempfile.TemporaryDirectory() as scratch:
        copies = {TRACKING: _snapshot(database, Path(scratch) / TRACKING)}
        if (folder / STUDIES).is_file():
            copies[STUDIES] = _snapshot(folder / STUDIES, Path(scratch) / STUDIES)
        runs = elsewhere = 0
        artifact_folders = []
        with _edit(copies[TRACKING]) as tracking:
            for table, key, uri in _locations(tracking):
                path = artifact_folder(uri)
                inside = path is not None and path.is_relative_to(folder)
                if inside:
                    assert path is not None
                    _set_location(tracking, table, key, path.relative_to(folder).as_posix())
                if table == "runs":
                    runs, elsewhere = runs + 1, elsewhere + (not inside)
                    artifact_folders += [path] if inside and path is not None else []
        archive.parent.mkdir(parents=True, exist_ok=True)
        with _create(archive) as tar:
            for name, copy in copies.items():
                tar.add(copy, arcname=name)
            for artifacts in sorted(artifact_folders):
                for file in sorted(f for f in artifacts.rglob("*") if f.is_file()):
                    if adapters or file.relative_to(artifacts).parts[0] != _ADAPTER:
                        tar.add(file, arcname=file.relative_to(folder).as_posix())
    notes = [] if adapters else ["Adapters are not included."]
    notes += [f"Artifacts of {elsewhere} runs are in other folders and not included."] if elsewhere else []
    notes += [] if STUDIES in copies else [f"No studies: there is no {STUDIES} in the folder of the database."]
    return " ".join([f"{archive}: {runs} runs, {archive.stat().st_size / 2**20:.1f} MiB.", *notes])


def _check_database(database: Path) -> None:
    if not database.is_file():
        allowed = "must be an existing SQLite database; results on a server cannot be packed"
        raise OptionError("MLFLOW_TRACKING_URI", database, allowed)


def _safe_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive, having checked that each is a file or folder inside the target folder.

    Raises:
        ExtractError: a member is a link or special file, or would be written outside the target folder.
    """
    members = tar.getmembers()
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise tarfile.ExtractError(f"{member.name} is not a file or folder inside the archive")
    return members


def unpack(archive: Path, folder: Path) -> str:
    """Unpack an archive into a folder and point the database at the artifacts there.

    Returns:
        A summary for the user.

    Raises:
        OptionError: the file is not an archive of results, or the folder already has results.
    """
    folder = folder.absolute()
    if (folder / TRACKING).exists():
        raise OptionError("folder", folder, f"already has a {TRACKING}; choose a new or empty folder")
    check_folder("folder", folder, folder)
    try:
        with tarfile.open(archive) as tar:
            if TRACKING not in tar.getnames():
                raise OptionError("archive", archive, f"has no {TRACKING}; must be a file written by `pack`")
            members = _safe_members(tar)
            folder.mkdir(parents=True, exist_ok=True)
            # The database comes last: if unpacking fails, the folder can be used again.
            tar.extractall(folder, members=[m for m in members if m.name != TRACKING], **_FILTER)
            tar.extract(TRACKING, folder, **_FILTER)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise OptionError("archive", archive, f"cannot be read: {error}") from error
    with _edit(folder / TRACKING) as tracking:
        locations = list(_locations(tracking))
        for table, key, uri in locations:
            if not (urlsplit(uri).scheme or PurePosixPath(uri).is_absolute()):
                _set_location(tracking, table, key, (folder / uri).as_uri())
    runs = sum(table == "runs" for table, _, _ in locations)
    return f"{runs} runs in {folder}. Call `mlflow ui`, `analyze` or the commands of the runs there."


def _create(archive: Path) -> tarfile.TarFile:
    if archive.suffix == ".xz":
        return tarfile.open(archive, "w:xz", dereference=True)
    return tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w", dereference=True)


def _snapshot(database: Path, to: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("VACUUM")
    return to


@contextmanager
def _edit(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database, commit the changes, and vacuum so that old values do not remain in the file."""
    with closing(sqlite3.connect(database)) as connection:
        yield connection
        connection.commit()
        connection.execute("VACUUM")


def _locations(tracking: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield (table, key, URI) of every artifact location."""
    for table, column, key_column in _LOCATIONS:
        for key, uri in tracking.execute(f"SELECT {key_column}, {column} FROM {table}").fetchall():
            yield table, key, uri


def _set_location(tracking: sqlite3.Connection, table: str, key: str, uri: str) -> None:
    (column, key_column) = next((column, key_column) for name, column, key_column in _LOCATIONS if name == table)
    tracking.execute(f"UPDATE {table} SET {column} = ? WHERE {key_column} = ?", (uri, key))


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack. Return the exit status: 2 for bad options."""
    action, values = COMMAND.read(arguments)
    archive = Path(values["archive"])
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{TRACKING}"
    try:
        if action == "unpack":
            print(unpack(archive, Path(values["folder"])))
            return 0
        adapters = check_choice("adapters", values["adapters"], BOOLEANS) == "true"
        file = database_file(uri)
        if file is None:
            raise OptionError("MLFLOW_TRACKING_URI", uri, "must be sqlite:///...; results on a server cannot be packed")
        _check_database(file)  # before the lock, which creates a file beside the database
        with schema_lock(file):
            print(pack(archive, database=file, adapters=adapters))
    except OptionError as error:
        return report_option_error(error)
    return 0


if __name__ == "__main__":
    exit_with(main)
