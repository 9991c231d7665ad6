"""Puts the results of a folder into one file, and takes them out elsewhere, where they can be opened and gone on with.

python -m whichlora.archive pack study.tar.xz
python -m whichlora.archive unpack study.tar.xz --folder study

A SQLite tracking database names the artifacts of its runs by absolute paths. In an archive they are relative, and made
absolute again where it is unpacked, so that `mlflow ui`, `analyze` and an unfinished experiment or study work there.
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
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
_LEFT_OUT = "adapter"
"""Folder of a run's artifacts that an archive does without unless asked: adapters are most of its size."""
COMMAND = Group(
    "archive",
    "Put results into one file, or unpack them elsewhere.",
    (
        Command(
            "pack",
            "Write the runs of a SQLite tracking database, their artifacts, and the studies beside it into the file "
            "ARCHIVE (.tar.xz, .tar.gz or .tar).\n\nThe database is that of MLFLOW_TRACKING_URI, else mlflow.db in "
            "the current folder.",
            {"adapters": ("false", "Whether to include the trained adapters, most of the size: true or false.")},
            positional={"archive": FILE},
            choices={"adapters": BOOLEANS},
            examples=("whichlora archive pack study.tar.xz",),
        ),
        Command(
            "unpack",
            "Unpack the file ARCHIVE into a folder, in which mlflow ui, analyze and unfinished experiments find the "
            "results.",
            {"folder": (None, "Folder to unpack into, empty or new.")},
            positional={"archive": FILE},
            choices={"folder": FOLDER},
            examples=("whichlora archive unpack study.tar.xz --folder study",),
        ),
    ),
)


def pack(archive: Path, *, database: Path, adapters: bool = False) -> str:
    """Write the runs of a tracking database, their artifacts, and the studies beside it into an archive.

    The databases are copied as they are at one moment, while others may write to them.

    Args:
        adapters: whether the trained adapters come along.

    Returns:
        a sentence for a person.

    Raises:
        OptionError: there is no such database.
    """
    _check_database(database)
    folder = database.parent
    with tempfile.TemporaryDirectory() as scratch:
        copies = {TRACKING: _copied(database, Path(scratch) / TRACKING)}
        if (folder / STUDIES).is_file():
            copies[STUDIES] = _copied(folder / STUDIES, Path(scratch) / STUDIES)
        runs = elsewhere = 0
        places = []
        with _open(copies[TRACKING]) as tracking:
            for table, place, uri in _locations(tracking):
                path = artifact_folder(uri)
                inside = path is not None and path.is_relative_to(folder)
                if inside:
                    assert path is not None
                    _set(tracking, table, place, path.relative_to(folder).as_posix())
                if table == "runs":
                    runs, elsewhere = runs + 1, elsewhere + (not inside)
                    places += [path] if inside and path is not None else []
        archive.parent.mkdir(parents=True, exist_ok=True)
        with _written(archive) as tar:
            for name, copy in copies.items():
                tar.add(copy, arcname=name)
            for artifacts in sorted(places):
                for file in sorted(f for f in artifacts.rglob("*") if f.is_file()):
                    if adapters or file.relative_to(artifacts).parts[0] != _LEFT_OUT:
                        tar.add(file, arcname=file.relative_to(folder).as_posix())
    left = [] if adapters else ["Adapters are not in it."]
    left += [f"Artifacts of {elsewhere} runs lie elsewhere and are not in it."] if elsewhere else []
    left += [] if STUDIES in copies else [f"No studies: there is no {STUDIES} beside the runs."]
    return " ".join([f"{archive}: {runs} runs, {archive.stat().st_size / 2**20:.1f} MiB.", *left])


def _check_database(database: Path) -> None:
    if not database.is_file():
        allowed = "must be a SQLite database that is there; a server's results are its own to keep"
        raise OptionError("MLFLOW_TRACKING_URI", database, allowed)


def _within(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return what is in an archive, files and folders that stay in the folder it is unpacked into.

    Raises:
        ExtractError: something else is in it.
    """
    members = tar.getmembers()
    for member in members:
        place = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or place.is_absolute() or ".." in place.parts:
            raise tarfile.ExtractError(f"{member.name} is no file or folder of its own")
    return members


def unpack(archive: Path, folder: Path) -> str:
    """Take an archive's results out into a folder, and have its database look for artifacts there.

    Returns:
        a sentence for a person.

    Raises:
        OptionError: it is no such archive, or the folder has results already.
    """
    folder = folder.absolute()
    if (folder / TRACKING).exists():
        raise OptionError("folder", folder, f"has a {TRACKING} already; take an empty or a new one")
    check_folder("folder", folder, folder)
    try:
        with tarfile.open(archive) as tar:
            if TRACKING not in tar.getnames():
                raise OptionError("archive", archive, f"has no {TRACKING}; allowed is what `pack` wrote")
            members = _within(tar)
            folder.mkdir(parents=True, exist_ok=True)
            # The database comes last: a folder that was not filled may be filled again.
            tar.extractall(folder, members=[m for m in members if m.name != TRACKING], **_FILTER)
            tar.extract(TRACKING, folder, **_FILTER)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise OptionError("archive", archive, f"cannot be read: {error}") from error
    with _open(folder / TRACKING) as tracking:
        found = list(_locations(tracking))
        for table, place, uri in found:
            if not (urlsplit(uri).scheme or PurePosixPath(uri).is_absolute()):
                _set(tracking, table, place, (folder / uri).as_uri())
    runs = sum(table == "runs" for table, _, _ in found)
    return f"{runs} runs in {folder}: there `mlflow ui`, `analyze` and the commands that made them find what is done."


def _written(archive: Path) -> tarfile.TarFile:
    if archive.suffix == ".xz":
        return tarfile.open(archive, "w:xz", dereference=True)
    return tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w", dereference=True)


def _copied(database: Path, to: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("VACUUM")
    return to


@contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection whose changes are kept, and leave no trace of what was changed in the file."""
    with closing(sqlite3.connect(database)) as connection:
        yield connection
        connection.commit()
        connection.execute("VACUUM")


def _locations(tracking: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield (table, key, URI) of every place of artifacts."""
    for table, column, key in _LOCATIONS:
        for place, uri in tracking.execute(f"SELECT {key}, {column} FROM {table}").fetchall():
            yield table, place, uri


def _set(tracking: sqlite3.Connection, table: str, place: str, uri: str) -> None:
    (column, key) = next((column, key) for name, column, key in _LOCATIONS if name == table)
    tracking.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (uri, place))


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack. Returns the exit status: 2 for bad options."""
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
                "MLFLOW_TRACKING_URI", uri, "must be sqlite:///...: a server's results are its own to keep"
            )
        _check_database(file)  # before the lock, which would leave its file beside none
        with schema_lock(file):
            print(pack(archive, database=file, adapters=adapters))
    except OptionError as error:
        return report_option_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
