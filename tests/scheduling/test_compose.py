"""Checks docker-compose.yml: required secrets, published ports, pinned images, and that its commands work together.

No container engine is needed. The slow test runs the commands of the file as local processes, with ports, hosts and
folders set through the file's own variables and mounts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
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

import psutil
import pytest
from compose import ROOT, SECRETS, TEXT, RefusedError, interpolate, read

import whichlora

SERVICES: dict[str, Any] = read()["services"]


def test_the_file_conforms_to_the_compose_specification(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, str(ROOT / "docker-compose.yml")], check=True)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(TEXT.replace("healthcheck:", "healthchek:", 1))
    assert subprocess.run([*command, str(broken)], check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("given", [None, ""])
@pytest.mark.parametrize("name", SECRETS)
def test_nothing_starts_without_a_password(name: str, given: str | None) -> None:
    variables = {key: value for key, value in SECRETS.items() if key != name} | ({} if given is None else {name: given})
    with pytest.raises(RefusedError, match=rf"{name}: set it in \.env"):
        interpolate(TEXT, variables)


def test_every_secret_is_set_by_the_user() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN$|KEY", name) and value is not None:
                assert value in SECRETS.values(), name
        assert not any(
            secret in str(service.get("command")) for secret in SECRETS.values()
        )  # command lines are visible to other users


def test_the_example_names_the_variables_and_gives_no_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    given = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert given == dict.fromkeys(SECRETS, "")
    named = set(re.findall(r"^#?([A-Z]\w+)=", example, re.MULTILINE))
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    used |= {name for s in SERVICES.values() for name, value in s.get("environment", {}).items() if value is None}
    assert named <= used
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"  # keeps .env out of images


def test_ports_are_published_on_loopback_by_default() -> None:
    ports = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert set(ports) == {"database", "mlflow", "dashboard"}
    assert all(port.startswith("127.0.0.1:") for found in ports.values() for port in found)
    asked = read(MLFLOW_BIND="10.0.0.5")["services"]
    assert asked["mlflow"]["ports"] == ["10.0.0.5:5000:5000"]
    assert asked["database"]["ports"] == ports["database"]  # one at a time
    assert asked["dashboard"]["ports"] == ports["dashboard"]
    assert not any("network_mode" in s or "privileged" in s for s in SERVICES.values())


def test_images_are_pinned_and_the_workers_wait_for_the_schemas() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}", "base"}
    outside = [s["image"] for s in SERVICES.values() if "build" not in s]
    assert len(outside) == 1
    assert all(re.search(r":\d+\.\d+", image) for image in [python, *outside])
    chosen = {"PYTHON_IMAGE": "python@sha256:1", "POSTGRES_IMAGE": "postgres@sha256:2"}
    pinned = read(**chosen)["services"]
    assert pinned["database"]["image"] == chosen["POSTGRES_IMAGE"]
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["args"] == {"PYTHON_IMAGE": python}
            assert pinned[name]["build"]["args"] == {"PYTHON_IMAGE": chosen["PYTHON_IMAGE"]}
            assert service["image"].rpartition(":")[2] == whichlora.__version__
    for name in ("worker", "gpu-worker"):
        needs = SERVICES[name]["depends_on"]
        assert needs["schemas"]["condition"] == "service_completed_successfully"
        assert needs["mlflow"]["condition"] == "service_healthy"
        assert not {"container_name", "ports"} & SERVICES[name].keys()  # there may be several
    assert SERVICES["schemas"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert SERVICES["mlflow"]["depends_on"]["schemas"]["condition"] == "service_completed_successfully"


def test_persistent_data_is_on_named_volumes() -> None:
    content = read()
    mounts = {name: dict(v.split(":") for v in s.get("volumes", ())) for name, s in content["services"].items()}
    assert mounts["database"] == {"database": "/var/lib/postgresql/data"}
    assert mounts["mlflow"] == {"artifacts": "/artifacts"}
    assert mounts["worker"] == {"work": SERVICES["worker"]["environment"]["WHICHLORA_WORK"], "cache": "/cache"}
    assert {volume for found in mounts.values() for volume in found} == set(content["volumes"])


def test_only_the_service_of_the_schemas_is_the_superuser_and_the_dashboard_is_off_by_default() -> None:
    users = {name: s["environment"]["PGUSER"] for name, s in SERVICES.items() if "PGUSER" in s["environment"]}
    assert users == {
        "schemas": "whichlora",
        "mlflow": "mlflow",
        "dashboard": "dashboard",
        "worker": "worker",
        "gpu-worker": "worker",
    }
    for name, service in SERVICES.items():
        if name not in ("database", "schemas"):
            assert SECRETS["POSTGRES_PASSWORD"] not in service["environment"].values()
        if name not in ("mlflow",):
            assert SECRETS["MLFLOW_PASSWORD"] not in service["environment"].values()
    assert SERVICES["worker"]["environment"]["MLFLOW_TRACKING_USERNAME"] == "worker"
    assert SERVICES["dashboard"]["profiles"] == ["dashboard"]


def test_make_env_creates_secrets_that_only_the_user_can_read(tmp_path: Path) -> None:
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "env", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, check=True, preexec_fn=lambda: os.umask(0o022) and None)
    file = tmp_path / ".env"
    assert file.stat().st_mode & 0o777 == 0o600
    given = dict(line.split("=", 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))
    assert given.keys() == SECRETS.keys()
    assert len(set(given.values())) == len(given)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in given.values())
    interpolate(TEXT, given)
    before = file.read_text()
    subprocess.run(command, cwd=tmp_path, check=True)  # passwords in use are not replaced
    assert file.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", ".env.example", ".env"}


def test_docker_compose_parses_the_file_as_these_tests_do(tmp_path: Path) -> None:
    def works(command: list[str]) -> bool:
        tried = shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True, check=False)
        return bool(tried) and tried.returncode == 0

    found = [command for command in (["docker", "compose"], ["docker-compose"]) if works(command)]
    if not found:
        pytest.skip("neither `docker compose` nor docker-compose is installed")

    def config(content: str) -> subprocess.CompletedProcess[str]:
        values = tmp_path / "values"
        values.write_text(content)
        command = [
            *found[0],
            "--profile",
            "gpu",
            "--profile",
            "dashboard",
            "--env-file",
            str(values),
            "config",
            "--format",
            "json",
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "is missing a value: set it in .env" in config((ROOT / ".env.example").read_text()).stderr
    done = config("".join(f"{name}='{value}'\n" for name, value in SECRETS.items()))
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)["services"]
    assert theirs.keys() == SERVICES.keys()
    for name, service in SERVICES.items():
        assert theirs[name].get("environment") == service.get("environment")
        assert theirs[name].get("command") == (shlex.split(service["command"]) if "command" in service else None)
        assert all(port["host_ip"] == "127.0.0.1" for port in theirs[name].get("ports", ()))


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_of_the_file_serve_a_study_and_require_the_password(
    postgres: str, tmp_path: Path, tiny_model: str
) -> None:
    mlflow_port, dashboard_port = free_port(), free_port()
    mlflow, dashboard = f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{dashboard_port}"
    options = {"model": tiny_model, "trials": 2, "train_size": 16, "validation_size": 3, "test_size": 3}
    options |= {"epochs": 1, "batch_size": 8, "target_modules": "all-linear", "rank": 2, "pruner": "none"}
    here = Here(
        tmp_path,
        POSTGRES_HOST=postgres,
        MLFLOW_PORT=str(mlflow_port),
        MLFLOW_URL=mlflow,
        DASHBOARD_PORT=str(dashboard_port),
        WORKER_COMMAND=shlex.join(["python", "-m", "tuning.tune", *(f"--{n}={v}" for n, v in options.items())]),
    )
    try:
        here.run("schemas")
        servers = [here.start("dashboard"), here.start("mlflow")]
        here.until_healthy("mlflow", servers[1])

        experiments = f"{mlflow}/api/2.0/mlflow/experiments/search"
        admin = f"admin:{SECRETS['MLFLOW_PASSWORD']}"
        assert ask(experiments, max_results=9)[0] == 401
        assert ask(f"{mlflow}/api/2.0/mlflow/experiments/create", name="anyone's")[0] == 401
        assert ask(experiments, "admin:password1234", max_results=9)[0] == 401
        assert ask(experiments, admin, max_results=9)[0] == 200
        assert ask(experiments, admin, host=f"mlflow:{mlflow_port}", max_results=9)[0] == 200  # as workers call it
        assert ask(experiments, admin, host="elsewhere.example", max_results=9)[0] == 403

        here.run("worker", seconds=550)

        (found,) = [e for e in ask(experiments, admin, max_results=9)[1]["experiments"] if e["name"] == "whichlora"]
        search = {"experiment_ids": [found["experiment_id"]], "max_results": 100}
        runs = ask(f"{mlflow}/api/2.0/mlflow/runs/search", admin, **search)[1]["runs"]
        tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
        trials = {t["whichlora.trial"] for t in tags if t["whichlora.kind"] == "trial"}
        assert {"0", "1"} <= trials
        assert [t["whichlora.kind"] for t in tags].count("study") == 1
        assert {run["info"]["status"] for run in runs} == {"FINISHED"}
        assert list((tmp_path / "artifacts").rglob("spec.json"))  # through the server, into its volume

        reader = f"dashboard:{SECRETS['DASHBOARD_PASSWORD']}"
        status, listed = ask(f"{dashboard}/api/studies", reader)
        assert status == 200
        assert ask(f"{dashboard}/api/studies")[0] == 401
        assert ask(f"{dashboard}/api/studies", reader, host="elsewhere.example")[0] == 403
        names = [s["study_name"] for s in listed["study_summaries"]]
        (study,) = {t["whichlora.study"] for t in tags if "whichlora.study" in t}
        assert f"tune/{study}" in names

        for server in servers:
            assert server.poll() is None
            for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
                listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
                assert {c.laddr.ip for c in listening} <= {"127.0.0.1"}
        assert not list((tmp_path / "cwd").iterdir())  # where a container must not write
    finally:
        here.stop()
