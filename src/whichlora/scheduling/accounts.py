"""Creates the schemas of the servers, and accounts that may do no more than their work.

`python -m whichlora.scheduling.accounts` is the service `schemas` of docker-compose.yml. It connects to PostgreSQL as
the superuser whom the variables `PG...` name, and may be repeated. Afterwards

- `mlflow` owns the database `mlflow` and cannot connect to the other one;
- `worker` reads and writes the rows of `optuna`, but can neither create nor drop tables; it is a user of MLflow too,
  who may change only the experiments of workers;
- `dashboard` reads `optuna`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import psycopg
from psycopg import sql

from whichlora.command_line import exit_with
from whichlora.scheduling import storage
from whichlora.tracking.client import connect, ensure_schema

TRACKING, STUDIES = "mlflow", "optuna"
ROLES = {
    "mlflow": "MLFLOW_DATABASE_PASSWORD",
    "worker": "WORKER_PASSWORD",
    "dashboard": "DASHBOARD_PASSWORD",
}
"""Variable with the password by role."""
_LIMITS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def main() -> int:
    """Create what is missing and return the exit status."""
    passwords = {role: os.environ[variable] for role, variable in ROLES.items()}
    _create_roles(passwords)
    with _acting_as("mlflow", passwords["mlflow"]):
        ensure_schema(connect())
        _create_mlflow_user("worker", passwords["worker"])
    storage.connect(lambda study, trial: None)
    _grant_studies()
    return 0


def _create_roles(passwords: dict[str, str]) -> None:
    """Create the roles, let nobody else connect, and give the tracking database and what it contains to `mlflow`."""
    with psycopg.connect(dbname=TRACKING, autocommit=True) as server:
        existing = {name for (name,) in server.execute("SELECT rolname FROM pg_roles")}
        for role, password in passwords.items():
            verb = sql.SQL("ALTER" if role in existing else "CREATE")
            server.execute(
                sql.SQL("{} ROLE {} " + _LIMITS + " PASSWORD {}").format(
                    verb, sql.Identifier(role), sql.Literal(password)
                )
            )
        for (database,) in server.execute("SELECT datname FROM pg_database WHERE datallowconn").fetchall():
            server.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
        server.execute(f"GRANT CONNECT ON DATABASE {STUDIES} TO worker, dashboard")
        server.execute(f"ALTER DATABASE {TRACKING} OWNER TO mlflow")
        server.execute("ALTER SCHEMA public OWNER TO mlflow")
        relations = server.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') "
            "UNION SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' AND "
            "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i'))"
        ).fetchall()
        for (name,) in relations:  # of an installation in which the superuser owned them
            server.execute(sql.SQL("ALTER TABLE public.{} OWNER TO mlflow").format(sql.Identifier(name)))


def _grant_studies() -> None:
    """Let workers change the rows of the database of studies, and the dashboard read them."""
    rights = (
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "GRANT USAGE ON SCHEMA public TO worker, dashboard",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker",
        "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO worker",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO dashboard",
        "REVOKE INSERT, UPDATE, DELETE ON version_info, alembic_version FROM worker",
    )
    with psycopg.connect(dbname=STUDIES) as server:
        for right in rights:
            server.execute(right)


def _create_mlflow_user(name: str, password: str) -> None:
    """Create a user of the tracking server, who is no administrator, or set the password of the existing one."""
    store = importlib.import_module("mlflow.server.auth.sqlalchemy_store").SqlAlchemyStore()
    store.init_db(mlflow.get_tracking_uri())
    if store.has_user(name):
        store.update_user(name, password=password, is_admin=False)
    else:
        store.create_user(name, password, is_admin=False)


@contextmanager
def _acting_as(role: str, password: str) -> Iterator[None]:
    """Let libpq connect as a role within the block."""
    before = {name: os.environ.get(name) for name in ("PGUSER", "PGPASSWORD")}
    os.environ.update({"PGUSER": role, "PGPASSWORD": password})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    exit_with(main)
