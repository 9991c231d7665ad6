"""Packs the results of a folder into one file."""

from __future__ import annotations

import os
import sqlite3
import tarfile
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from whichlora.archive.untar import DATABASES, is_allowed
from whichlora.errors import OptionError, check_output_folder, is_file
from whichlora.text_tables import format_size
from whichlora.tracking import packed
from whichlora.tracking.model_files import ADAPTER, EXAMPLES, MLMODEL, problem_of
from whichlora.tracking.moved import warn_if_moved
from whichlora.tracking.sqlite import flush, reading, tracking_state

TRACKING, STUDIES = DATABASES
_SUFFIXES: dict[str, Any] = {".xz": "w:xz", ".gz": "w:gz", ".tar": "w"}


def pack(archive: Path, *, database: Path, adapters: bool = False) -> str:
    """Write the runs of a tracking database, their artifacts, and the studies beside it to an archive.

    The databases are copied as consistent snapshots; other processes may write to them in the meantime. Artifacts of a
    run that was finished then are complete, others are as they are found.

    Args:
        archive: the file to write; its suffix chooses the compression.
        database: the SQLite tracking database.
        adapters: whether to include the trained adapters, which would be most of the archive's size, and the examples
            of models, which have the texts of a test item.

    Returns:
        A summary for the user.

    Raises:
        OptionError: the database does not exist, or the archive cannot be written.
    """
    check_database(database)
    warn_if_moved(database)
    if archive.suffix not in _SUFFIXES:
        raise OptionError("archive", archive, "must end in .tar.xz, .tar.gz or .tar")
    check_output_folder("archive", archive, archive.absolute().parent)
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
            packed.shorten_sources(tracking)
            runs, models, elsewhere = _make_relative(tracking, folder)
            linked = {model for model, run in packed.model_locations(tracking) if _is_linked(model, run, folder)}
        inside = [*runs, *models]
        files, others = _files(inside, folder, without_adapter=linked if adapters else inside, examples=adapters)
        archive.parent.mkdir(parents=True, exist_ok=True)
        mode = _SUFFIXES[archive.suffix]
        with _replaced(archive) as part, tarfile.open(part, mode, dereference=True) as tar:
            for name, path in [*copies.items(), *sorted(files.items())]:
                with suppress(FileNotFoundError):  # a file of an unfinished run may be gone by now
                    tar.add(path, arcname=name)
    notes = [] if adapters else ["Adapters and the texts of models' examples are not included."]
    notes += [f"Artifacts of {elsewhere} runs are in other folders and not included."] if elsewhere else []
    notes += [f"{others} files of other kinds, and links to other folders, are not included."] if others else []
    notes += [] if STUDIES in copies else [f"No studies: there is no {STUDIES} in the folder of the database."]
    summary = f"{archive}: {len(runs) + elsewhere} runs, {format_size(archive.stat().st_size)}."
    return " ".join([summary, *notes])


def check_database(database: Path) -> None:
    """Check that a file is a SQLite tracking database.

    Raises:
        OptionError: it is not.
    """
    if not database.is_file():
        allowed = "must be an existing SQLite database; results on a server are elsewhere"
        raise OptionError("MLFLOW_TRACKING_URI", database, allowed)
    if tracking_state(database) in ("absent", "incomplete", "foreign"):
        raise OptionError("MLFLOW_TRACKING_URI", database, "must be a database of runs")


def _make_relative(tracking: sqlite3.Connection, folder: Path) -> tuple[list[str], list[str], int]:
    """Make the locations in a copied database relative to the folder of the original.

    A location in another folder becomes one at which there is nothing, so that an archive contains no absolute paths.

    Returns:
        The artifact folders of the runs and those of the models, relative to `folder`, and the number of runs with
        artifacts elsewhere.
    """
    inside: dict[str, list[str]] = {"runs": [], "logged_models": []}
    elsewhere = 0
    for location in packed.locations(tracking):
        relative = packed.relative_location(location.uri, folder)
        nowhere = f"{packed.ARTIFACTS[0]}/elsewhere/{location.table}-{location.row}"
        packed.set_location(tracking, location, relative or nowhere)
        if location.table in inside and relative:
            inside[location.table].append(relative)
        elsewhere += location.table == "runs" and not relative
    return inside["runs"], inside["logged_models"], elsewhere


def _is_linked(model: str, run: str, folder: Path) -> bool:
    """Return whether the adapter of a model is hard links to that of its run, which `unpack` creates again."""
    source, links = folder / run / ADAPTER, folder / model / ADAPTER
    try:
        return all((source / file.relative_to(links)).samefile(file) for file in _files_in(links))
    except OSError:  # one of the two is not there, or was deleted meanwhile
        return False


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, passing over what is deleted meanwhile."""
    for parent, _, names in os.walk(folder):
        yield from (path for path in (Path(parent, name) for name in names) if is_file(path))


def _files(
    artifact_folders: Sequence[str], folder: Path, *, without_adapter: Collection[str], examples: bool
) -> tuple[dict[str, Path], int]:
    """Return the files to pack by their names in the archive, and the number of files that must not be in one.

    A link is packed as what it leads to, if that is among the artifacts of the same run.

    Args:
        without_adapter: those of the artifact folders whose adapter is left out.
        examples: whether to include the models' examples.
    """
    files: dict[str, Path] = {}
    others = 0
    for inner in artifact_folders:
        artifacts = folder / inner
        for file in _files_in(artifacts):
            if inner in without_adapter and file.relative_to(artifacts).parts[0] == ADAPTER:
                continue
            if not examples and file.name in EXAMPLES:
                continue
            name = file.relative_to(folder).as_posix()
            own = file.resolve().is_relative_to(artifacts.resolve())
            if is_allowed(name) and own and not (file.name == MLMODEL and problem_of(file)):
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


def _snapshot(database: Path, to: Path) -> Path:
    with reading(database) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("VACUUM")
    return to
