"""Packs runs, artifacts and studies into one archive, and unpacks it on another machine or in another folder.

python -m whichlora.archive pack study.tar.xz
python -m whichlora.archive unpack study.tar.xz --folder study

A SQLite tracking database stores the locations of artifacts as absolute paths. Packing makes them relative, and
unpacking makes them absolute again, so that `mlflow ui`, `analyze` and an unfinished experiment or study work there.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from whichlora.command_line import BOOLEANS, FILE, FOLDER, Command, Group
from whichlora.config.cli import report_option_error
from whichlora.errors import OptionError, check_choice, check_folder
from whichlora.tracking.sqlite import artifact_folder, database_file, schema_lock

TRACKING, STUDIES = "mlflow.db", "optuna.db"
_LOCATIONS = (("experiments", "artifact_location", "experiment_id"), ("runs", "artifact_uri", "run_uuid"))
"""Tables with locations of artifacts, with the column of the URI and of the primary key."""
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
_ADAPTER_FOLDER = "adapter"
"""Folder of a run's artifacts that is omitted by default: adapters are most of the size."""
COMMAND = Group(
    "archive",
    "Pack results into one file, or unpack them elsewhere.",
    (
        Command(
            "pack",
            "Write the runs of a SQLite tracking database, their artifacts, and the studies beside it into the file "
            "ARCHIVE (.tar.xz, .tar.gz or .tar).\n\nThe database is the one in MLFLOW_TRACKING_URI, by default "
            "mlflow.db in the current folder.",
            {"adapters": ("false", "Whether to include the trained adapters, which are large: true or false.")},
            positional={"archive": FILE},
            choices={"adapters": BOOLEANS},
            examples=("whichlora archive pack study.tar.xz",),
        ),
        Command(
            "unpack",
            "Unpack the file ARCHIVE into a folder, from which mlflow ui, analyze and unfinished experiments can use "
            "the results.",
            {"folder": (None, "Folder to unpack into; must not contain a tracking database.")},
            positional={"archive": FILE},
            choices={"folder": FOLDER},
            examples=("whichlora archive unpack study.tar.xz --folder study",),
        ),
    ),
)


def pack(archive: Path, *, database: Path, adapters: bool = False) -> str:
    """Write the runs of a tracking database, their artifacts, and the studies beside it into an archive.

    The databases may be in use: the archive contains consistent copies.

    Args:
        adapters: whether to include the trained adapters.

    Returns:
        a message for the user.

    Raises:
        OptionError: the database does not exist.
    """
    _check_database(database)
    folder = database.parent
    with tempfile.TemporaryDirectory() as scratch:
        copies = {TRACKING: _copy_database(database, Path(scratch) / TRACKING)}
        if (folder / STUDIES).is_file():
            copies[STUDIES] = _copy_database(folder / STUDIES, Path(scratch) / STUDIES)
        runs = elsewhere = 0
        artifact_folders = []
        with _edit_database(copies[TRACKING]) as tracking:
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
        with _open_for_writing(archive) as tar:
            for name, copy in copies.items():
                tar.add(copy, arcname=name)
            for artifacts in sorted(artifact_folders):
                for file in sorted(f for f in artifacts.rglob("*") if f.is_file()):
                    if adapters or file.relative_to(artifacts).parts[0] != _ADAPTER_FOLDER:
                        tar.add(file, arcname=file.relative_to(folder).as_posix())
    omissions = [] if adapters else ["Without adapters."]
    omissions += [f"Without the artifacts of {elsewhere} runs, which are in other folders."] if elsewhere else []
    omissions += [] if STUDIES in copies else [f"Without studies: there is no {STUDIES} beside the tracking database."]
    return " ".join([f"{archive}: {runs} runs, {archive.stat().st_size / 2**20:.1f} MiB.", *omissions])


def _check_database(database: Path) -> None:
    if not database.is_file():
        allowed = "must be an existing SQLite database"
        raise OptionError("MLFLOW_TRACKING_URI", database, allowed)


def _safe_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive.

    Raises:
        ExtractError: a member is not a regular file or folder, or its path leads out of the folder to unpack into.
    """
    members = tar.getmembers()
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise tarfile.ExtractError(f"{member.name} is not a regular file or folder inside the target folder")
    return members


def unpack(archive: Path, folder: Path) -> str:
    """Unpack an archive into a folder, and set the locations of artifacts in its database to that folder.

    Returns:
        a message for the user.

    Raises:
        OptionError: the file is not an archive written by `pack`, or the folder already contains a tracking database.
    """
    folder = folder.absolute()
    if (folder / TRACKING).exists():
        raise OptionError("folder", folder, f"already contains {TRACKING}; use an empty or new folder")
    check_folder("folder", folder, folder)
    try:
        with tarfile.open(archive) as tar:
            if TRACKING not in tar.getnames():
                raise OptionError("archive", archive, f"has no {TRACKING}; must be a file written by `pack`")
            members = _safe_members(tar)
            folder.mkdir(parents=True, exist_ok=True)
            # The database is unpacked last, so that an interrupted unpacking can be repeated.
            tar.extractall(folder, members=[m for m in members if m.name != TRACKING], **_FILTER)
            tar.extract(TRACKING, folder, **_FILTER)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise OptionError("archive", archive, f"cannot be read: {error}") from error
    with _edit_database(folder / TRACKING) as tracking:
        locations = list(_locations(tracking))
        for table, key, uri in locations:
            if not (urlsplit(uri).scheme or PurePosixPath(uri).is_absolute()):
                _set_location(tracking, table, key, (folder / uri).as_uri())
    runs = sum(table == "runs" for table, _, _ in locations)
    return f"{runs} runs in {folder}; run `mlflow ui`, `analyze` or unfinished experiments in that folder."


def _open_for_writing(archive: Path) -> tarfile.TarFile:
    if archive.suffix == ".xz":
        return tarfile.open(archive, "w:xz", dereference=True)
    return tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w", dereference=True)


def _copy_database(database: Path, path: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("VACUUM")
    return path


@contextmanager
def _edit_database(database: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection; on exit commit its changes and remove the overwritten values from the file (VACUUM)."""
    with closing(sqlite3.connect(database)) as connection:
        yield connection
        connection.commit()
        connection.execute("VACUUM")


def _locations(tracking: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield (table, primary key, URI) for every location of artifacts."""
    for table, uri_column, key_column in _LOCATIONS:
        for key, uri in tracking.execute(f"SELECT {key_column}, {uri_column} FROM {table}").fetchall():
            yield table, key, uri


def _set_location(tracking: sqlite3.Connection, table: str, key: str, uri: str) -> None:
    (uri_column, key_column) = next((column, key) for name, column, key in _LOCATIONS if name == table)
    tracking.execute(f"UPDATE {table} SET {uri_column} = ? WHERE {key_column} = ?", (uri, key))


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack, and return the exit status: 2 for an invalid option."""
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
            raise OptionError(
                "MLFLOW_TRACKING_URI", uri, "must be sqlite:///...: runs on a tracking server cannot be packed"
            )
        _check_database(file)  # first, because the lock creates a file beside the database
        with schema_lock(file):
            print(pack(archive, database=file, adapters=adapters))
    except OptionError as error:
        return report_option_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
