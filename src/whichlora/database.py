"""Sees to it that the tracking database has its schema: `python -m whichlora.database`.

Where it has, that takes a tenth of a second, because MLflow, which takes seconds to import, is not asked.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock


def file_of(uri: str) -> Path | None:
    """Return the file of a tracking database that is SQLite, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def path_of(uri: str) -> Path | None:
    """Return the folder that a URI or path of artifacts stands for; None if it is none of this machine's."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return Path(unquote(parts.path) if parts.scheme else uri).absolute()


def lock_of(file: Path) -> FileLock:
    """Return the lock under which a schema is made: two processes at once would leave it half made for good."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")


def _has_schema(file: Path) -> bool:
    if not file.is_file():
        return False
    with lock_of(file), closing(sqlite3.connect(file)) as database:
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


def main() -> None:
    """Have the schema made unless it is there."""
    file = file_of(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    if file is None or not _has_schema(file):
        from whichlora.tracking.runs import connect, touch

        touch(connect())


if __name__ == "__main__":
    main()
