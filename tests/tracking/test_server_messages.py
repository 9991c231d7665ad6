"""A server that does not answer: what is retried, how often, and when it answers again."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from whichlora.scheduling.retries import repeat_until_done, with_retries


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("repeats", [False, True])
def test_an_outage_of_a_database_is_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], repeats: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    port, tries, servers = free_port(), [], []

    def ask() -> bool:
        tries.append(1)
        if len(tries) == 4:
            servers.append(HTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler))
            threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
        return len(tries) < 5

    if repeats:
        repeat_until_done(ask, poll=0.05)
    else:
        with_retries(ask, poll=0.05)
    servers[0].shutdown()
    servers[0].server_close()
    first, *_, last = [line for line in capsys.readouterr().err.splitlines() if "GET /" not in line]
    assert first == (
        "warning: the server or database cannot be used (URLError: <urlopen error [Errno 111] Connection refused>); "
        "trying again up to 59 more times, every 0.05 s."
    )
    assert re.fullmatch(r"The server or database can be used again, after \d s\.", last)


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WHICHLORA_"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=own | variables, capture_output=True, text=True, check=False
    )


def test_a_tracking_server_that_is_away_from_the_start_is_said_with_its_tries(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    quick = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
    done = command(tmp_path, "-m", "whichlora", "runs", MLFLOW_TRACKING_URI=address, **quick)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"error: MLFLOW_TRACKING_URI={address}: cannot be used: no answer after \d s of tries \(Connection refused\); "
        r"start the server, or unset the variable for a database in the current folder\n",
        done.stderr,
    )


LATER = """
import os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from mlflow.tracking import MlflowClient
import mlflow
from whichlora.tracking.client import connect

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *arguments):
        pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
mlflow.set_tracking_uri(f"http://127.0.0.1:{server.server_port}")
client = connect()
server.shutdown()
server.server_close()
try:
    client.get_run("x")
except mlflow.exceptions.MlflowException:
    print("gave up")
"""


@pytest.mark.slow
def test_a_tracking_server_that_stops_answering_is_said_while_mlflow_retries(tmp_path: Path) -> None:
    few = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
    done = command(tmp_path, "-c", LATER, MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0", **few)
    assert done.stdout == "gave up\n", done.stderr
    prefix = "warning: the tracking server does not answer (Connection refused); MLflow retries for"
    assert done.stderr.splitlines() == [f"{prefix} about 2 s more (tries left: 1).", f"{prefix} the last time."]
