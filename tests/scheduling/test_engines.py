"""Engines refuse bad options, and a real Ray cluster survives the death of a node."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from whichlora.errors import OptionError
from whichlora.scheduling.engines import LocalProcesses, engine_of
from whichlora.scheduling.jobs import Job
from whichlora.scheduling.ray_cluster import RayTasks, check_reachable

PROJECT = Path(__file__).parents[2]
PATH = os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])
SMALL = {"train_size": 16, "validation_size": 3, "test_size": 3, "batch_size": 8, "learning_rate": 0.01}
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")


@pytest.mark.parametrize(
    ("name", "workers", "message"),
    [
        ("local", "0", "workers=0: must be a whole number from 1 to"),
        ("local", "two", "workers=two: must be a whole number"),
        ("slurm", "1", "engine=slurm: allowed are local, ray"),
    ],
)
def test_a_bad_engine_is_refused(name: str, workers: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        engine_of(name, workers)


def test_one_worker_is_this_process() -> None:
    assert engine_of("local", "1") is None
    engine = engine_of("local", "3")
    assert isinstance(engine, LocalProcesses)
    assert engine.workers == 3


@pytest.mark.parametrize("module", ["whichlora.experiment.command", "tuning.tune", "comparing.compare"])
def test_the_error_names_the_missing_extra_ray(store: Path, module: str) -> None:
    hide = f"import sys; sys.modules['ray'] = None; import {module} as m; sys.exit(m.main(sys.argv[1:]))"
    options = ["--file", "missing.yaml"] if module.startswith("whichlora.experiment") else []
    done = subprocess.run(
        [sys.executable, "-c", hide, *options, "--engine", "ray"],
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: engine=ray: needs the extra `ray`: pip install 'whichlora[ray]'"


LAUNCHED = "under accelerate launch, whose processes train one run together"


def test_accelerate_launch_allows_only_one_local_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engine_of("local", "1") is None
    for engine, workers, error in (("local", "2", "workers=2: must be 1"), ("ray", "1", "engine=ray: must be local")):
        with pytest.raises(OptionError) as caught:
            engine_of(engine, workers)
        assert str(caught.value) == f"{error} {LAUNCHED}"


@pytest.mark.parametrize(
    ("module", "command", "options"),
    [
        ("comparing.compare", "compare", ["--variant", "lora,dora"]),
        ("tuning.tune", "tune", []),
        ("tuning.learning_rates", "the sweep", []),
    ],
)
def test_commands_with_workers_of_their_own_are_refused_alike(
    module: str, command: str, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The advice can be followed: workers=2 is no other error of the same call."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for workers in ("1", "2"):
        assert importlib.import_module(module).main([*options, "--workers", workers]) == 2
        error = f"error: WORLD_SIZE=2: start {command} with workers=2 instead: it cannot run {LAUNCHED}\n"
        assert capsys.readouterr().err == error


def test_workers_on_other_machines_need_reachable_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mlflow.get_tracking_uri()
    away = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "WHICHLORA_STORAGE": "postgresql://db.example/optuna"}
    here = {
        "MLFLOW_TRACKING_URI": ["sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000", "http://localhost:5000"],
        "WHICHLORA_STORAGE": ["sqlite:////tmp/optuna.db", "postgresql:///optuna", "postgresql://u@localhost/optuna"],
    }

    def check(others: list[str], **changed: str) -> None:
        for name, value in (away | changed).items():
            monkeypatch.setenv(name, value)
        mlflow.set_tracking_uri(changed.get("MLFLOW_TRACKING_URI", away["MLFLOW_TRACKING_URI"]))
        check_reachable(others)

    try:
        check(["b"])
        for name, addresses in here.items():
            for address in addresses:
                check([], **{name: address})  # a cluster of only this machine
                with pytest.raises(OptionError, match=rf"engine=ray: {name} must be a server .*\(b, c\)") as error:
                    check(["b", "c"], **{name: address})
                assert address not in str(error.value)  # it may hold a password
        monkeypatch.setenv("PGHOST", "db.example")  # as in docker-compose.yml
        check(["b"], WHICHLORA_STORAGE="postgresql+psycopg:///optuna")
    finally:
        mlflow.set_tracking_uri(before)


@needs_ray
def test_a_cluster_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(OptionError, match=r"engine=ray: cannot join RAY_ADDRESS=127\.0\.0\.1:"):
            RayTasks(1).connect()


def start(folder: Path, module: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start an entry point on Ray with two workers; its log is in the folder."""
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words, "--engine", "ray", "--workers", "2"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": PATH},
            stdout=log,
            stderr=log,
        )


def until(true: Callable[[], Any], *, seconds: float = 300, pause: float = 0.5) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError("the condition was never met")


def trials_of(prefix: str) -> list[FrozenTrial]:
    """Return the trials of the study whose name begins with `prefix`."""
    if not Path("optuna.db").exists():
        return []
    storage = optuna.storages.RDBStorage("sqlite:///optuna.db")
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(prefix)]
    return optuna.load_study(study_name=names[0], storage=storage).get_trials() if names else []


def pid(trial: FrozenTrial) -> int:
    return int(str(trial.user_attrs["worker"]).rsplit("/", 2)[1])


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_on_a_local_cluster_that_listens_only_on_loopback(store: Path, tiny_model: str) -> None:
    options = {**SMALL, "model": tiny_model, "epochs": 1, "rank": 2, "target_modules": "all-linear"}
    del options["learning_rate"]
    process = start(store, "tuning.tune", **options, trials=4, pruner="none")
    until(lambda: [t for t in trials_of("tune/") if "worker" in t.user_attrs], pause=2)
    listening = [
        connection.laddr.ip
        for child in psutil.Process(process.pid).children(recursive=True)
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert process.wait(500) == 0, (store / "log").read_text()[-3000:]
    found = trials_of("tune/")
    assert [t.state for t in found].count(TrialState.COMPLETE) == 4
    assert process.pid not in {pid(t) for t in found}  # the workers did the trials
    assert "| lora | 4 |" in (store / "log").read_text().splitlines()[-1]


def node(folder: Path, token: str, *options: str) -> subprocess.Popen[bytes]:
    """Start a node of a cluster with one core and one (fake) GPU."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1", "--num-gpus", "1"]
    with (folder / f"node{len(options)}.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--object-store-memory", "80000000", "--disable-usage-stats", *options],
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONPATH": str(folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a node and all its processes at once, as if the machine was switched off."""
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        one.kill()
    psutil.wait_procs(tree, 30)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[bytes], ...]]:
    """Start a head and a second node on this machine; put their address and token into the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    token = secrets.token_hex(32)
    nodes = [node(tmp_path, token, "--head", "--port", port, "--include-dashboard", "false")]
    try:
        text = until(lambda: re.search(r"Local node IP.*?([\d.]{7,})", (tmp_path / "node5.log").read_text()))
        until(lambda: "Ray runtime started" in (tmp_path / "node5.log").read_text())
        address = f"{text[1]}:{port}"
        nodes.append(node(tmp_path, token, "--address", address, "--dashboard-agent-listen-port", "0"))
        until(lambda: "Ray runtime started" in (tmp_path / "node4.log").read_text())
        for name, value in {"ADDRESS": address, "AUTH_TOKEN": token, "AUTH_MODE": "token"}.items():
            monkeypatch.setenv(f"RAY_{name}", value)
        yield tuple(nodes)
    finally:
        for process in reversed(nodes):
            if process.poll() is None:
                kill(process)


_PROBE = """
import os, pathlib

def main(arguments):
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"  # each node has one
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "secret"
    try:
        pathlib.Path(arguments[0]).touch(exist_ok=False)  # a relative path, in the folder of the call
    except FileExistsError:
        return 3
    os._exit(1)
"""


@needs_ray
@pytest.mark.slow
def test_a_task_has_a_gpu_and_the_environment_and_is_restarted(
    store: Path, cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "probe.py").write_text(_PROBE)  # the nodes look for modules here
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for arguments, problem in ((["first"], r"^status 3$"), ([], "IndexError: list index out of range")):
        engine = RayTasks(1)
        engine.connect()
        (message,) = engine.run(Job("probe", arguments), lambda: None)
        assert re.search(problem, message)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_death_of_a_node_loses_and_repeats_nothing(
    store: Path, cluster: tuple[subprocess.Popen[bytes], ...], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store / "grid.yaml"
    defaults = {"model": tiny_model, **SMALL, "train_size": 96, "batch_size": 4, "seed": [1, 2, 3, 4]}
    file.write_text(yaml.safe_dump({"name": "grid", "defaults": defaults, "arms": [{"variant": ["lora", "vera"]}]}))
    with monkeypatch.context() as stranger:
        stranger.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        refused = start(store, "whichlora.experiment", file=file.name)
        assert refused.wait(200) == 2
        assert "error: engine=ray: cannot join RAY_ADDRESS=" in (store / "log").read_text()

    process = start(store, "whichlora.experiment", file=file.name)
    _, second = cluster

    def cell_of_second_node() -> FrozenTrial | None:
        """Return the trial on which a worker of the second node is working."""
        tree = {child.pid for child in psutil.Process(second.pid).children(recursive=True)}
        running = [t for t in trials_of("queue/") if t.state is TrialState.RUNNING and "worker" in t.user_attrs]
        return next((t for t in running if pid(t) in tree), None)

    lost = until(cell_of_second_node)
    kill(second)
    assert process.wait(400) == 0, (store / "log").read_text()[-3000:]
    assert "workers failed" not in (store / "log").read_text()  # Ray restarted the worker

    found = trials_of("queue/")
    done = Counter(t.user_attrs["cell"] for t in found if t.state is TrialState.COMPLETE)
    assert done == dict.fromkeys(done, 1)
    assert len(done) == 8
    assert [t.state for t in found if t.number == lost.number] == [TrialState.FAIL]
    assert done[lost.user_attrs["cell"]] == 1  # the other node did it
    experiment = MlflowClient().get_experiment_by_name("grid")
    runs = MlflowClient().search_runs([experiment.experiment_id], "tags.`whichlora.kind` = 'run'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert len({run.data.tags["whichlora.fingerprint"] for run in runs}) == 8
