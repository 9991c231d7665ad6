"""Sees to it that the tracking database has its schema: `python -m whichlora.database`.

Where it has, that takes a tenth of a second, because MLflow, which takes seconds to import, is not asked.
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
    if not file.is_file():
        return False
    with schema_lock(file), closing(sqlite3.connect(file)) as database:
        try:
            return bool(database.execute("SELECT version_num FROM alembic_version").fetchone() == (_newest(),))
        except sqlite3.DatabaseError:
            return False


def _newest() -> str | None:
    """Return the last of MLflow's migrations: before it a schema is half made, or an older MLflow's."""
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    texts = [path.read_text() for path in Path(package.origin).parent.glob("store/db_migrations/versions/*.py")]
    own, before = (
        {found[1] for text in texts if (found := re.search(rf'^{name}\b.*?= *["\'](\w+)["\']', text, re.MULTILINE))}
        for name in ("revision", "down_revision")
    )
    return min(own - before, default=None)


COMMAND = Command(
    "database",
    "Create the tables of the tracking database where they are missing, before several processes start at once.\n\nThe "
    "database is that of MLFLOW_TRACKING_URI, else mlflow.db in the current folder.",
    {},
    examples=("whichlora database",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the schema unless it is there. Returns the exit status."""
    COMMAND.read(arguments)
    file = database_file(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    if file is None or not _has_schema(file):
        # MLflow takes seconds to import, which only a missing schema need wait for.
        from whichlora.tracking.client import connect, ensure_schema

        ensure_schema(connect())
    return 0


if __name__ == "__main__":
    sys.exit(main())
