"""A real MLflow server behind a proxy that loses answers: to what creates runs and models, or to all for a while."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus, ViewType
from mlflow.tracking import MlflowClient

from whichlora.tracking import system_metrics
from whichlora.tracking.logged_models import open_model
from whichlora.tracking.runs import Tracker
from whichlora.tracking.telemetry import Telemetry

MEMORY = "system/process_memory_usage_megabytes"
TAGS = {"fingerprint": "abc"}
CREATIONS = {("POST", "runs/create"), ("POST", "logged-models")}


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server; `losses` answers to the creation of runs and models are lost, all while `down`.

    Of the paths with the text `without` it knows none, like a server of an earlier MLflow.
    """

    without = "nothing"

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.losses, self.down = urlsplit(target), 0, False


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
        if self.server.down:
            self.close_connection = True
            return
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
def test_system_metrics_of_a_time_without_a_server_are_logged_when_it_is_back(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system_metrics, "_WRITE_SECONDS", 0.3)
    monkeypatch.setattr(system_metrics, "_LAST_WRITE_SECONDS", 5)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    logs = [Tracker(MlflowClient(), "tests").open("run", name, {"fingerprint": name}) for name in ("back", "gone")]
    for log in logs:
        with Telemetry(log) as telemetry:
            time.sleep(1)
            proxy.down = True
            time.sleep(1)
            proxy.down = log is logs[1]
            time.sleep(1)
        proxy.down = False
        assert telemetry.metrics()["host/memory_max_mb"] > 0
    back, gone = ([p.step for p in log.client.get_metric_history(log.run_id, MEMORY)] for log in logs)
    assert back == list(range(len(back)))  # the server has stored what it did not confirm, once
    assert len(back) > 20
    assert gone == list(range(len(gone)))
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ")
    assert "points of system metrics were not logged" in warning


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
