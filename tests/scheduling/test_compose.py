"""Checks docker-compose.yml: required secrets, published ports, pinned images, and the commands of workers.

No container engine is needed; `test_compose_services` runs the commands of the file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_the_example_names_what_workers_can_do_and_the_page_has_the_same_commands() -> None:
    given = re.findall(r"^#WORKER_COMMAND=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    modules = [command.split()[2] for command in given]
    assert modules == ["tuning.tune", "whichlora.experiment", "whichlora.compare"]
    page = (ROOT / "docs" / "how-to" / "servers.md").read_text()
    assert re.findall(r"^\| \[.+\| `(python -m .+)` \|$", page, re.MULTILINE) == given
    assert f"python -m {modules[0]}" == SERVICES["worker"]["command"]  # without a variable
    for command in given:
        python, *words = shlex.split(command)
        assert python == "python"
        done = subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        options = [word for word in words if word.startswith("--")]
        assert all(re.search(rf"^ *{option}\b", done.stdout, re.MULTILINE) for option in options)
        files = [word for word in words if word.endswith(".yaml")]
        assert all((ROOT / name).is_file() for name in files)
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        assert all(f"!{name.partition('/')[0]}" in ignored for name in files)  # they are in the image


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
