"""Creates the schema of the tracking database if it is missing: `python -m whichlora.database`.

An existing schema is detected within a tenth of a second, without importing MLflow, which takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from whichlora.command_line import Command, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import printable
from whichlora.masking import masked
from whichlora.tracking.moved import warn_if_moved
from whichlora.tracking.sqlite import database_file, tracking_state

COMMAND = Command(
    "database",
    "Create the tables of the tracking database if they are missing, before several processes start at once.\n\nThe "
    "database is that of MLFLOW_TRACKING_URI, by default mlflow.db in the current folder.",
    {},
    examples=("whichlora database",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the schema if it is missing. Return the exit status: 2 for a database that cannot be used."""
    return guarded(_create, COMMAND.read(arguments))


def _create() -> int:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    file = database_file(uri)
    if file is not None and tracking_state(file) == "complete":
        warn_if_moved(file)
    else:
        # MLflow takes seconds to import and is needed only for a missing schema.
        from whichlora.tracking.client import connect, ensure_schema

        ensure_schema(connect())
    print(printable(f"The tracking database is ready: {masked(uri)}"))
    return 0


if __name__ == "__main__":
    exit_with(main)
