"""Creates the schema of the tracking database if it is missing: `python -m whichlora.database`.

An existing schema is detected within a tenth of a second, without importing MLflow, which takes seconds.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from whichlora.command_line import Command
from whichlora.tracking.sqlite import database_file, schema_lock


def _has_schema(file: Path) -> bool:
    """Return whether a SQLite database has the schema of the installed MLflow."""
    if not file.is_file():
        return False
    with schema_lock(file), closing(sqlite3.connect(file)) as database:
        try:
            return bool(database.execute("SELECT version_num FROM alembic_version").fetchone() == (_latest_revision(),))
        except sqlite3.DatabaseError:
            return False


def _latest_revision() -> str | None:
    """Return the last of MLflow's migrations; a database at an earlier one is incomplete or of an older MLflow."""
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    texts = [path.read_text() for path in Path(package.origin).parent.glob("store/db_migrations/versions/*.py")]
    revisions, predecessors = (
        {match[1] for text in texts if (match := re.search(rf'^{name}\b.*?= *["\'](\w+)["\']', text, re.MULTILINE))}
        for name in ("revision", "down_revision")
    )
    return min(revisions - predecessors, default=None)


COMMAND = Command(
    "database",
    "Create the tables of the tracking database if they are missing, before several processes start at once.\n\nThe "
    "database is that of MLFLOW_TRACKING_URI, by default mlflow.db in the current folder.",
    {},
    examples=("whichlora database",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the schema if it is missing. Return the exit status."""
    COMMAND.read(arguments)
    file = database_file(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    if file is None or not _has_schema(file):
        # MLflow takes seconds to import and is needed only for a missing schema.
        from whichlora.tracking.client import connect, ensure_schema

        ensure_schema(connect())
    return 0


if __name__ == "__main__":
    sys.exit(main())
