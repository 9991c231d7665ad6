"""What the accounts of the servers may do, on a real PostgreSQL server, and who may open the dashboard."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.util import setup_testing_defaults

import mlflow
import optuna
import psycopg
import pytest
from compose import SECRETS
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from whichlora.scheduling import accounts
from whichlora.scheduling.dashboard import app, guarded
from whichlora.scheduling.queue import Queue, connect

PASSWORDS = {"whichlora": "POSTGRES_PASSWORD", **accounts.ROLES}


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGUSER", role)
        patch.setenv("PGPASSWORD", SECRETS[PASSWORDS[role]])
        yield


def refused(role: str, database: str, statement: str) -> bool:
    with acting_as(role):
        try:
            with psycopg.connect(dbname=database) as connection:
                connection.execute(statement)
        except (psycopg.errors.InsufficientPrivilege, psycopg.OperationalError):
            return True
    return False


@pytest.fixture(scope="module")
def servers(postgres: str) -> Iterator[None]:
    """The databases as the service `schemas` leaves them, after a run of its former version and two of this one."""
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_DATABASE_PASSWORD", "WORKER_PASSWORD", "DASHBOARD_PASSWORD"):
            patch.setenv(name, SECRETS[name])
        patch.setenv("PGHOST", postgres)
        patch.setenv("WHICHLORA_STORAGE", "postgresql+psycopg:///optuna")
        patch.setenv("DASHBOARD_HOSTS", "localhost:*")
        patch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg:///mlflow")
        mlflow.set_tracking_uri("postgresql+psycopg:///mlflow")
        try:
            with acting_as("whichlora"):
                with psycopg.connect(dbname="mlflow") as connection:  # tables of the superuser
                    connection.execute("CREATE TABLE former (number SERIAL PRIMARY KEY)")
                assert accounts.main() == 0
                assert accounts.main() == 0
            yield
        finally:
            mlflow.set_tracking_uri(before)


def test_accounts_may_do_their_work_and_no_more(servers: None) -> None:
    with acting_as("worker"):
        queue, done = Queue("test", connect()), []
        queue.offer(["a"])
        queue.work(lambda cell, check: done.append(cell))
        assert done == ["a"]
        assert queue.states() == {"a": TrialState.COMPLETE}
        optuna.delete_study(study_name="queue/test", storage=connect())
        Queue("again", connect()).offer(["b"])
    with acting_as("dashboard"):
        reader = RDBStorage("postgresql+psycopg:///optuna", skip_table_creation=True)
        assert "queue/again" in [study.study_name for study in reader.get_all_studies()]
        reader.engine.dispose()
    with acting_as("mlflow"), psycopg.connect(dbname="mlflow") as connection:
        assert connection.execute("SELECT COUNT(*) FROM experiments").fetchone() == (1,)
        connection.execute("ALTER TABLE former ADD COLUMN more TEXT")  # as a migration does
        connection.execute("CREATE TABLE another (number INTEGER)")

    with acting_as("whichlora"), psycopg.connect(dbname="postgres") as connection:
        powers = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
        powerful = f"SELECT rolname FROM pg_roles WHERE rolname IN ('mlflow', 'worker', 'dashboard') AND ({powers})"
        assert connection.execute(powerful).fetchall() == []
    for role, database, statement in [
        ("worker", "mlflow", "SELECT 1"),
        ("dashboard", "mlflow", "SELECT 1"),
        ("mlflow", "optuna", "SELECT 1"),
        *((role, "postgres", "SELECT 1") for role in ("worker", "dashboard", "mlflow")),
        *(("worker", "optuna", statement) for statement in ("DROP TABLE studies", "CREATE TABLE x (y INTEGER)")),
        ("worker", "optuna", "TRUNCATE studies"),
        ("worker", "optuna", "UPDATE version_info SET schema_version = 1"),
        ("worker", "optuna", "CREATE TEMPORARY TABLE x (y INTEGER)"),
        ("worker", "optuna", "COPY studies TO PROGRAM 'true'"),
        ("worker", "optuna", "SELECT pg_read_file('/etc/passwd')"),
        ("worker", "optuna", "ALTER ROLE worker SUPERUSER"),
        ("mlflow", "mlflow", "CREATE ROLE other"),
        ("mlflow", "mlflow", "COPY experiments TO PROGRAM 'true'"),
        ("dashboard", "optuna", "DELETE FROM studies"),
        ("dashboard", "optuna", "INSERT INTO studies (study_name) VALUES ('x')"),
    ]:
        assert refused(role, database, statement), (role, database, statement)


def test_the_dashboard_shows_studies_and_cannot_delete_them(servers: None) -> None:
    with acting_as("worker"):
        Queue("shown", connect())
    with acting_as("dashboard"):
        served = app()
        status, body = ask(served, "/api/studies", password=SECRETS["DASHBOARD_PASSWORD"])
        assert status == 200
        (study,) = (s for s in json.loads(body)["study_summaries"] if s["study_name"] == "queue/shown")
        path = f"/api/studies/{study['study_id']}"
        assert ask(served, path, password=SECRETS["DASHBOARD_PASSWORD"])[0] == 200
        assert ask(served, path, password=SECRETS["DASHBOARD_PASSWORD"], REQUEST_METHOD="DELETE")[0] >= 400
        assert ask(served, path)[0] == 401
    with acting_as("worker"):
        assert "queue/shown" in optuna.get_all_study_names(connect())


def ask(application: Any, path: str, *, password: str | None = None, **environ: str) -> tuple[int, bytes]:
    """Return the status and the body of a response, without a server between."""
    request: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "localhost:8080", **environ}
    setup_testing_defaults(request)
    if password is not None:
        encoded = base64.b64encode(f"dashboard:{password}".encode()).decode()
        request["HTTP_AUTHORIZATION"] = f"Basic {encoded}"
    statuses: list[str] = []
    body = b"".join(application(request, lambda status, headers, *_: statuses.append(status)))
    return int(statuses[-1].split()[0]), body


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, 200),
        ({"HTTP_HOST": "LOCALHOST:1"}, 200),
        ({"HTTP_ORIGIN": "http://localhost:8080"}, 200),
        ({"HTTP_HOST": "elsewhere.example:8080"}, 403),
        ({"HTTP_HOST": "localhost.elsewhere.example:8080"}, 403),
        ({"HTTP_HOST": "elsewhere.example:8080#localhost:1"}, 403),
        ({"HTTP_HOST": ""}, 403),
        ({"HTTP_ORIGIN": "http://elsewhere.example"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_AUTHORIZATION": ""}, 401),
        ({"HTTP_AUTHORIZATION": "Basic ZGFzaGJvYXJk"}, 401),
        ({"HTTP_AUTHORIZATION": "Basic !"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer secret"}, 401),
    ],
)
def test_only_known_hosts_with_the_password_reach_the_dashboard(environ: dict[str, str], status: int) -> None:
    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"inside"]

    served = guarded(inner, password="secret", hosts=["localhost:*"])

    def with_password(request: Any, start_response: Any) -> Any:
        return served({**request, **environ}, start_response)

    answer = ask(with_password, "/", password="secret")
    assert answer[0] == status
    assert (answer[1] == b"inside") == (status == 200)
    assert ask(served, "/", password="other")[0] == 401
    with pytest.raises(ValueError, match="empty"):
        guarded(inner, password="", hosts=["*"])


def test_the_former_environment_is_restored() -> None:
    before = dict(os.environ)
    with accounts._acting_as("worker", "x"):
        assert os.environ["PGUSER"] == "worker"
    assert dict(os.environ) == before
