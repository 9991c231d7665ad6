"""Packs the results of a folder into one file and unpacks them elsewhere, where they can be viewed and resumed.

python -m whichlora.archive pack study.tar.xz
python -m whichlora.archive unpack study.tar.xz --folder study

A SQLite tracking database refers to the artifacts of its runs by absolute paths. They are relative in an archive and
become absolute again on unpacking, so `mlflow ui`, `analyze` and unfinished experiments or studies work there.

An archive contains the two databases and the artifacts beside them, and nothing else is packed or unpacked: neither
files of other kinds, which the next command in the folder might run, nor what links or locations outside lead to.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from whichlora.command_line import BOOLEANS, FILE, FOLDER, Command, Group, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, check_choice, check_folder, check_text, is_file, parse_number, printable
from whichlora.tracking import packed
from whichlora.tracking.packed import UnsafeDatabaseError
from whichlora.tracking.sqlite import database_file, flush, reading, tracking_state
from whichlora.tracking.untar import ARCHIVE_ERRORS, DATABASES, RefusedArchiveError, extract, is_allowed

TRACKING, STUDIES = DATABASES
_SUFFIXES: dict[str, Any] = {".xz": "w:xz", ".gz": "w:gz", ".tar": "w"}
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
            {
                "folder": (None, "Folder to unpack into, new or empty."),
                "limit": ("20", "Largest size of the unpacked files together, in GiB."),
            },
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
        OptionError: the database does not exist, or the archive cannot be written.
    """
    _check_database(database)
    if archive.suffix not in _SUFFIXES:
        raise OptionError("archive", archive, "must end in .tar.xz, .tar.gz or .tar")
    try:
        return _pack(archive, database, adapters=adapters)
    except (OSError, sqlite3.Error) as error:
        raise OptionError("archive", archive, f"cannot be written: {error}") from error


def _pack(archive: Path, database: Path, *, adapters: bool) -> str:
    folder = database.parent
    with tempfile.TemporaryDirectory() as scratch:
        copies = {TRACKING: _snapshot(database, Path(scratch) / TRACKING)}
        studies = folder / STUDIES
        if studies.is_file() and studies.resolve().parent == folder.resolve():
            copies[STUDIES] = _snapshot(studies, Path(scratch) / STUDIES)
        with packed.edit(copies[TRACKING]) as tracking:
            packed.drop_foreign_rows(tracking)
            inside, elsewhere = _make_relative(tracking, folder)
        files, others = _files(inside, folder, adapters=adapters)
        archive.parent.mkdir(parents=True, exist_ok=True)
        with _replaced(archive) as part, tarfile.open(part, _SUFFIXES[archive.suffix]) as tar:
            for name, path in [*copies.items(), *sorted(files.items())]:
                tar.add(path, arcname=name)
    notes = [] if adapters else ["Adapters are not included."]
    notes += [f"Artifacts of {elsewhere} runs are in other folders and not included."] if elsewhere else []
    notes += [f"{others} files of other kinds, and links to other folders, are not included."] if others else []
    notes += [] if STUDIES in copies else [f"No studies: there is no {STUDIES} in the folder of the database."]
    summary = f"{archive}: {len(inside) + elsewhere} runs, {archive.stat().st_size / 2**20:.1f} MiB."
    return " ".join([summary, *notes])


def _check_database(database: Path) -> None:
    if not database.is_file():
        allowed = "must be an existing SQLite database; results on a server cannot be packed"
        raise OptionError("MLFLOW_TRACKING_URI", database, allowed)
    if tracking_state(database) in ("absent", "incomplete", "foreign"):
        raise OptionError("MLFLOW_TRACKING_URI", database, "must be a database of runs")


def _make_relative(tracking: sqlite3.Connection, folder: Path) -> tuple[list[str], int]:
    """Make the locations in a copied database relative to the folder of the original.

    A location in another folder becomes one at which there is nothing, so that an archive contains no absolute paths.

    Returns:
        The artifact folders of the runs, relative to `folder`, and the number of runs with artifacts elsewhere.
    """
    inside, elsewhere = [], 0
    for location in packed.locations(tracking):
        relative = packed.relative_location(location.uri, folder)
        nowhere = f"{packed.ARTIFACTS[0]}/elsewhere/{location.table}-{location.row}"
        packed.set_location(tracking, location, relative or nowhere)
        if location.table == "runs":
            inside += [relative] if relative else []
            elsewhere += not relative
    return inside, elsewhere


def _files(artifact_folders: Sequence[str], folder: Path, *, adapters: bool) -> tuple[dict[str, Path], int]:
    """Return the files to pack by their names in the archive, and the number of files that must not be in one.

    A link is packed as what it leads to, if that is among the artifacts of the same run.
    """
    files: dict[str, Path] = {}
    others = 0
    for artifacts in (folder / name for name in artifact_folders):
        for file in (f for f in artifacts.rglob("*") if f.is_file()):
            if not adapters and file.relative_to(artifacts).parts[0] == _ADAPTER:
                continue
            name = file.relative_to(folder).as_posix()
            if is_allowed(name) and file.resolve().is_relative_to(artifacts.resolve()):
                files[name] = file.resolve()
            else:
                others += 1
    return files, others


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield the name of a new file, which replaces `path` at the end of the block if nothing fails."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path, *, limit: float = 20) -> str:
    """Unpack an archive into a folder and point its database at the artifacts there.

    The archive may come from anywhere: what is not part of results is refused. If unpacking fails, the folder is as
    before.

    Args:
        archive: a file written by `pack`.
        folder: a new or empty folder.
        limit: largest size of the unpacked files together, in GiB.

    Returns:
        A summary for the user.

    Raises:
        OptionError: the file is not an archive of results, is too large, or the folder is not empty.
    """
    folder = folder.absolute()
    check_folder("folder", folder, folder)
    if folder.is_dir() and (present := sorted(path.name for path in folder.iterdir())):
        raise OptionError("folder", folder, f"already has files ({present[0]}); choose a new or empty folder")
    if not is_file(archive):
        raise OptionError("archive", archive, "cannot be read: there is no such file")
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    # In an existing folder, which may be on another disk than its parent; otherwise beside the new one.
    stage = (folder if folder.is_dir() else folder.parent) / f".{folder.name}.{uuid.uuid4().hex[:8]}.unpacking"
    done = False
    try:
        stage.mkdir(parents=True)
        extract(archive, stage, limit=int(limit * 2**30))
        runs = _adopt(stage, folder)
        _move(stage, folder)
        done = True
    except (RefusedArchiveError, UnsafeDatabaseError) as error:
        raise OptionError("archive", archive, str(error)) from error
    except (*ARCHIVE_ERRORS, sqlite3.Error) as error:
        raise OptionError("archive", archive, f"cannot be read or unpacked: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in () if done else new_parents:
            with suppress(OSError):
                parent.rmdir()
    return f"{runs} runs in {folder}. Call `mlflow ui`, `analyze` or the commands of the runs there."


def _adopt(stage: Path, folder: Path) -> int:
    """Check the unpacked databases, make their locations those in `folder`, and return the number of runs."""
    for name in DATABASES:
        if (stage / name).exists():
            packed.check(stage / name)
            with packed.edit(stage / name) as database:
                if name == TRACKING:
                    packed.drop_foreign_rows(database)
                    for location in packed.locations(database):
                        path = folder / packed.packed_location(location.uri)
                        packed.set_location(database, location, path.as_uri())
                    (runs,) = database.execute("SELECT COUNT(*) FROM runs").fetchone()
            flush(stage / name)
    return int(runs)


def _move(stage: Path, folder: Path) -> None:
    """Move what was unpacked to its folder; the database comes last, because it makes the folder one of results."""
    if not folder.is_dir():
        stage.rename(folder)
        flush(folder.parent)
        return
    moved = []
    try:
        for path in sorted(stage.iterdir(), key=lambda path: path.name == TRACKING):
            if (folder / path.name).exists():
                raise FileExistsError(f"{folder / path.name} was created in the meantime")
            path.rename(folder / path.name)
            moved.append(folder / path.name)
    except OSError:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    flush(folder)


def _snapshot(database: Path, to: Path) -> Path:
    with reading(database) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("VACUUM")
    return to


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack. Return the exit status: 2 for bad options."""
    action, values = COMMAND.read(arguments)
    return guarded(lambda: _archive(action, values), values)


def _archive(action: str, values: Mapping[str, Any]) -> int:
    archive = Path(values["archive"])
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{TRACKING}"
    if action == "unpack":
        limit = parse_number("limit", values["limit"], above=0, high=10**6, unit=" of GiB")
        folder = Path(check_text("folder", values["folder"]))
        print(printable(unpack(archive, folder, limit=limit)))
        return 0
    adapters = check_choice("adapters", values["adapters"], BOOLEANS) == "true"
    file = database_file(uri)
    if file is None:
        raise OptionError("MLFLOW_TRACKING_URI", uri, "must be sqlite:///...; results on a server cannot be packed")
    print(printable(pack(archive, database=file, adapters=adapters)))
    return 0


if __name__ == "__main__":
    exit_with(main)
