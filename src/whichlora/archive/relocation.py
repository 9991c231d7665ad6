"""Points a tracking database at the artifacts beside it after its folder was moved or copied."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from whichlora.archive.packing import check_database
from whichlora.errors import OptionError
from whichlora.tracking.moved import Changes, point_here
from whichlora.tracking.sqlite import schema_lock

_BUSY_SECONDS = 60.0


def relocate(database: Path, *, force: bool = False) -> str:
    """Change the locations of artifacts in a SQLite tracking database to its folder, all or none of them.

    Artifacts that are only in the former folder stay there, with their locations.

    Args:
        database: the database.
        force: whether to do so even if runs are in progress.

    Returns:
        A summary for the user.

    Raises:
        OptionError: the database does not exist or cannot be changed, or runs are in progress.
    """
    check_database(database)
    try:
        with schema_lock(database), closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as tracking:
            tracking.isolation_level = None
            tracking.execute("PRAGMA trusted_schema = OFF")
            tracking.execute("BEGIN IMMEDIATE")
            if not force:
                _check_idle(tracking, database)
            changes = point_here(tracking, database)
            tracking.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        raise OptionError("MLFLOW_TRACKING_URI", database, f"cannot be changed: {error}") from error
    return _summary(changes, database)


def _check_idle(tracking: sqlite3.Connection, database: Path) -> None:
    query = "SELECT run_uuid FROM runs WHERE status IN ('RUNNING', 'SCHEDULED') AND lifecycle_stage = 'active'"
    running = [run_id for (run_id,) in tracking.execute(query)]
    if running:
        named = ", ".join(running[:3]) + (", ..." if len(running) > 3 else "")
        advice = f"{len(running)} runs are in progress ({named}); wait for their end, or add --force true if none is"
        raise OptionError("MLFLOW_TRACKING_URI", database, f"{advice}, as after a kill")


def _summary(changes: Changes, database: Path) -> str:
    if not changes.former:
        return f"Nothing to do: no location in {database} is that of a former folder."
    former = ", ".join(map(str, changes.former))
    lines = [f"{changes.changed} locations are now in {database.parent}, and were in {former}."]
    if changes.left:
        lines.append(
            f"Artifacts of {len(changes.left)} runs are in the former folder only, such as {changes.left[0]}: copy "
            f"them to the same place in {database.parent} and repeat the command."
        )
    return "\n".join(lines)
