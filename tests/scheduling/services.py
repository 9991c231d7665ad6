"""Runs the commands of docker-compose.yml as local processes, with ports, hosts and folders set through the file's own
variables and mounts; and asks servers over HTTP.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compose import ROOT, read


class Here:
    """Runs the commands of the file's services as local processes."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.content = folder, read(LISTEN="127.0.0.1", **variables)
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "cwd").mkdir()

    def start(self, name: str, command: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Start a service, or `command` in its place, in an empty folder and with only the service's environment."""
        service = self.content["services"][name]
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_", "PG", "AWS_"))}
        environment = {k: self._mounted(service, v) for k, v in service["environment"].items() if v is not None}
        image = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
        path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")])}
        words = command or [self._mounted(service, word) for word in shlex.split(service["command"])]
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder / "cwd",
                env=own | image | path | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(self, name: str, *, seconds: float = 300) -> None:
        status = self.start(name).wait(seconds)
        assert status == 0, self.log(name)

    def until_healthy(self, name: str, server: subprocess.Popen[bytes]) -> None:
        """Run the health check of the file until it succeeds."""
        test = self.content["services"][name]["healthcheck"]["test"]
        assert test[0] == "CMD"
        deadline = time.monotonic() + 180
        while self.start(name, test[1:]).wait(60):
            assert time.monotonic() < deadline, self.log(name)
            assert server.poll() is None, self.log(name)
            time.sleep(1)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def _mounted(self, service: Mapping[str, Any], text: str) -> str:
        """Return `text` with the paths of mounts replaced by local paths."""
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")
            text = re.sub(rf"(?<![\w/]){target}\b", str(self.folder / source), text)
        for config in service.get("configs", ()):
            if config["target"] in text:
                path = self.folder / config["source"]
                path.write_text(self.content["configs"][config["source"]]["content"])
                text = text.replace(config["target"], str(path))
        return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, user: str | None = None, *, host: str | None = None, **body: Any) -> tuple[int, Any]:
    """Return the status and the JSON of a response; the request is a POST if it has a body."""
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, None
