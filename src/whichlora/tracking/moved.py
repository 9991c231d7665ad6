"""Detects that the folder of a SQLite database was moved or copied, whose locations of artifacts are absolute."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from whichlora.tracking import packed
from whichlora.tracking.packed import ARTIFACTS
from whichlora.tracking.sqlite import artifact_folder, reading


class Changes(NamedTuple):
    """What `point_here` did.

    Attributes:
        former: folders in which the database was.
        changed: number of locations that were changed.
        left: folders of artifacts that are only in a former folder; their locations were not changed.
    """

    former: list[Path]
    changed: int
    left: list[Path]


def point_here(tracking: sqlite3.Connection, database: Path) -> Changes:
    """Change the locations in former folders of a database to those in its folder, within the open transaction."""
    locations = packed.locations(tracking)
    stored = (entry.uri for entry in locations if entry.table != "experiments" or _is_used(entry.row, entry.uri))
    former = _former_folders(stored, database)
    changed, left = 0, []
    for location in locations:
        inner = next((i for folder, i in _splits(location.uri, database.parent) if folder in former), None)
        if inner is None:
            continue
        path, here = artifact_folder(str(location.uri)), database.parent / inner
        assert path is not None
        if location.table != "experiments" and _exists(path) and not _exists(here):
            left.append(path)
        else:
            packed.set_location(tracking, location, here.as_uri())
            changed += 1
    return Changes(former, changed, left)


def _former_folders(uris: Iterable[object], database: Path) -> list[Path]:
    """Return the folders in which a database was when locations were stored, except the one in which it is.

    A location that was chosen freely is not one of a former folder: the artifacts have to be beside the database too,
    or another database of this name beside them.
    """
    found: dict[Path, None] = {}
    for uri in uris:
        for folder, inner in _splits(uri, database.parent):
            if _exists(database.parent / inner) or _exists(folder / database.name):
                found[folder] = None
                break
    return list(found)


def _is_used(experiment: int, uri: object) -> bool:
    """Return whether an experiment was created by a command, or has artifacts.

    MLflow creates the experiment `Default` with each database, at a location that depends on the current folder.
    """
    path = artifact_folder(str(uri)) if experiment == 0 else None
    return path is None or _exists(path)


def _exists(path: Path) -> bool:
    """Return whether a path exists; False in a folder of another user that this one cannot read."""
    try:
        return path.exists()
    except OSError:
        return False


def _splits(uri: object, here: Path) -> list[tuple[Path, Path]]:
    """Return the ways to split a location into the folder of a database and a path of artifacts in it.

    There are none for a location in the folder `here`, and for one on a server.
    """
    try:
        path = artifact_folder(str(uri))
    except ValueError:  # not a URI
        return []
    if path is None or ".." in path.parts or packed.relative_location(uri, here) is not None:
        return []
    parts = path.parts
    return [(Path(*parts[:n]), Path(*parts[n:])) for n, part in enumerate(parts) if n and part in ARTIFACTS]


@cache
def warn_if_moved(database: Path) -> None:
    """Print a warning, once in a process, if a database stores artifacts in a folder in which it no longer is."""
    with reading(database) as tracking:
        query = "SELECT experiment_id, artifact_location FROM experiments WHERE lifecycle_stage = 'active'"
        former = _former_folders((uri for number, uri in tracking.execute(query) if _is_used(number, uri)), database)
    if former:
        print(
            f"warning: the folder {database.parent} was moved or copied, and artifacts are still read and written in "
            f"{', '.join(map(str, former))}. End the runs in progress and call `whichlora archive relocate`.",
            file=sys.stderr,
        )
