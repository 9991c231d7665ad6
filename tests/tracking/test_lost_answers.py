"""A real MLflow server behind a proxy that loses the answers to requests that create runs and models."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus, ViewType
from mlflow.tracking import MlflowClient

from whichlora.tracking.logged_models import open_model
from whichlora.tracking.runs import Tracker

TAGS = {"fingerprint": "abc"}
CREATIONS = {("POST", "runs/create"), ("POST", "logged-models")}


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server; `losses` answers to the creation of runs and models are lost.

    Of the paths with the text `without` it knows none, like a server of an earlier MLflow.
    """

    without = "nothing"

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.losses = urlsplit(target), 0


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.without in self.path:
            self.send_error(404)
            return
        connection = http.client.HTTPConnection(str(self.server.target.hostname), self.server.target.port)
        connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if (self.command, self.path.rpartition("/mlflow/")[2]) in CREATIONS and self.server.losses:
            self.server.losses -= 1
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def proxy(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("WHICHLORA_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    before = mlflow.get_tracking_uri()
    with Proxy(server) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{proxy.server_port}")
        yield proxy
        mlflow.set_tracking_uri(before)
        proxy.shutdown()


@pytest.mark.slow
def test_one_run_exists_however_many_answers_are_lost(proxy: Proxy, tmp_path: Path) -> None:
    tracker = Tracker(MlflowClient(), "tests")
    for losses in (0, 1, 2):  # with two, MLflow's client gives up
        proxy.losses = losses
        tags = {**TAGS, "fingerprint": f"lost {losses}"}
        with tracker.once("run", "a run", tags, work=tmp_path / "work" / "run") as attempt:
            attempt.log.metrics({"x": 1.0})
        assert proxy.losses == 0
    client = MlflowClient()
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "tests"]
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED"] * 3
    everything = client.search_runs([experiment], run_view_type=ViewType.ALL)
    assert len(everything) > 3  # the duplicates existed
    assert "RUNNING" not in {run.info.status for run in everything}


@pytest.mark.slow
def test_one_model_exists_however_many_answers_are_lost(proxy: Proxy, tmp_path: Path) -> None:
    log = Tracker(MlflowClient(), "tests").open("run", "a run", TAGS)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.safetensors").write_text("weights")
    for losses in (1, 2):  # with two, MLflow's client gives up
        proxy.losses = losses
        log = Tracker(MlflowClient(), "tests").open("run", "a run", {**TAGS, "fingerprint": f"lost {losses}"})
        proxy.losses = losses
        model = open_model(log, name="a/b: 0.5 'c'", params={"variant": "lora"}, tags={})
        assert model is not None
        assert proxy.losses == 0
        log.artifacts(tmp_path / "adapter", "adapter")
        model.adopt(tmp_path / "adapter", "adapter")
        model.finish()
        again = open_model(log, name="a/b: 0.5 'c'", params={"variant": "lora"}, tags={})
        assert again is not None
        assert again.model.model_id == model.model.model_id
        (found,) = log.client.search_logged_models([model.model.experiment_id], f"source_run_id = '{log.run_id}'")
        assert (found.status, found.params) == (LoggedModelStatus.READY, {"variant": "lora"})
        assert [output.model_id for output in log.client.get_run(log.run_id).outputs.model_outputs] == [found.model_id]
        folder = Path(mlflow.artifacts.download_artifacts(found.model_uri))
        assert (folder / "adapter" / "weights.safetensors").read_text() == "weights"
    proxy.without = "logged-models"
    assert open_model(log, name="a", params={}, tags={}) is None
