"""The commands of docker-compose.yml work together, as local processes: no container engine is needed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import psutil
import pytest
from compose import SECRETS
from moods import OPTIONS, write_experiment, write_task
from services import Here, ask, free_port


def runs_of(experiment: str, mlflow: str, user: str) -> list[dict[str, Any]]:
    """Return the runs of an experiment on the server at this address."""
    found = ask(f"{mlflow}/api/2.0/mlflow/experiments/search", user, max_results=9)[1]["experiments"]
    (place,) = [each["experiment_id"] for each in found if each["name"] == experiment]
    search = {"experiment_ids": [place], "max_results": 100}
    runs: list[dict[str, Any]] = ask(f"{mlflow}/api/2.0/mlflow/runs/search", user, **search)[1]["runs"]
    return runs


def tags_of(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_file_serve_a_study_and_a_comparison_and_require_the_password(
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

        runs = runs_of("whichlora", mlflow, admin)
        tags = [tags_of(run) for run in runs]
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

        write_task(tmp_path)
        write_experiment(tmp_path, tiny_model)
        compare = ["python", "-m", "whichlora.compare", *OPTIONS[2:], "--file", str(tmp_path / "moods.yaml")]
        assert here.start("worker", compare).wait(900) == 0, here.log("worker")
        assert "\nTake " in here.log("worker")
        found = runs_of("moods", mlflow, admin)
        assert [tags_of(run)["whichlora.kind"] for run in found].count("comparison") == 1
        assert {run["info"]["status"] for run in found} == {"FINISHED"}
        models, worker = f"{mlflow}/api/2.0/mlflow/registered-models", f"worker:{SECRETS['WORKER_PASSWORD']}"
        assert ask(f"{models}/create", worker, name="moods-tiny-tr")[0] == 200  # as for a champion
        assert ask(f"{models}/get?name=moods-tiny-tr")[0] == 401

        for server in servers:
            assert server.poll() is None
            for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
                listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
                assert {c.laddr.ip for c in listening} <= {"127.0.0.1"}
        assert not list((tmp_path / "cwd").iterdir())  # where a container must not write
    finally:
        here.stop()
