"""Unpacks results from a file, which is not trusted, into a folder."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from contextlib import suppress
from pathlib import Path

from whichlora.archive.untar import ARCHIVE_ERRORS, DATABASES, RefusedArchiveError, extract
from whichlora.errors import OptionError, check_output_folder, is_file, is_folder
from whichlora.tracking import packed
from whichlora.tracking.model_files import ADAPTER, MLMODEL, link_files
from whichlora.tracking.packed import UnsafeDatabaseError
from whichlora.tracking.sqlite import flush

TRACKING, _ = DATABASES


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
    check_output_folder("folder", folder, folder)
    if folder.is_dir() and (present := sorted(path.name for path in folder.iterdir())):
        raise OptionError("folder", folder, f"already has files ({present[0]}); choose a new or empty folder")
    if not is_file(archive):
        what = "it is a folder" if is_folder(archive) else "there is no such file"
        raise OptionError("archive", archive, f"cannot be read: {what}")
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
        advice = "" if isinstance(error, OSError) else "; it must be a file that `whichlora archive pack` has written"
        raise OptionError("archive", archive, f"cannot be read or unpacked: {error}{advice}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in () if done else new_parents:
            with suppress(OSError):
                parent.rmdir()
    after = "In that folder `mlflow ui`, `whichlora runs`, `whichlora analyze` and the commands of the runs find them."
    return f"{runs} runs in {folder}. {after}"


def _adopt(stage: Path, folder: Path) -> int:
    """Check the unpacked databases, make their locations those in `folder`, and return the number of runs."""
    for name in DATABASES:
        if (stage / name).exists():
            packed.check(stage / name)
            with packed.edit(stage / name) as database:
                if name == TRACKING:
                    packed.drop_foreign_rows(database)
                    models = packed.model_locations(database)
                    for location in packed.locations(database):
                        path = folder / packed.packed_location(location.uri)
                        packed.set_location(database, location, path.as_uri())
                    _link_adapters(models, stage)
                    (runs,) = database.execute("SELECT COUNT(*) FROM runs").fetchone()
            flush(stage / name)
    return int(runs)


def _link_adapters(models: list[tuple[str, str]], stage: Path) -> None:
    """Link the adapters of models to those of their runs, as they were; copy them where there are no links."""
    for model, run in models:
        source, target = stage / run / ADAPTER, stage / model / ADAPTER
        if source.is_dir() and (stage / model / MLMODEL).is_file() and not target.exists():
            try:
                link_files(source, target)
            except OSError:
                shutil.copytree(source, target, dirs_exist_ok=True)


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
