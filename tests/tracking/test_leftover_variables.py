"""Variables that another program left in the environment: they never change a run that is not of this command."""

from __future__ import annotations

import time

import pytest
from mlflow.tracking import MlflowClient

from whichlora.run.command import main
from whichlora.tracking.client import connect
from whichlora.tracking.launch import mark_launch
from whichlora.tracking.runs import Tracker

LAUNCHED = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "main", "mlflow.project.backend": "local"}


def made(client: MlflowClient, tags: dict[str, str], *, status: str = "RUNNING", age: float = 0.0) -> str:
    run = client.create_run("0", tags=tags, start_time=int((time.time() - age) * 1000))
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def snapshot(client: MlflowClient, run_id: str) -> tuple[object, ...]:
    run = client.get_run(run_id)
    return run.data.tags, run.data.params, run.info.status, run.info.end_time, run.info.run_name


def test_a_run_made_by_mlflow_run_just_now_is_marked(store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    run_id = made(client, LAUNCHED)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert mark_launch(client) == run_id
    assert client.get_run(run_id).data.tags["whichlora.kind"] == "launch"
    assert mark_launch(client) == run_id  # by this command, or by its workers
    monkeypatch.delenv("WHICHLORA_LAUNCH")
    assert mark_launch(client) is None  # by another command


@pytest.mark.parametrize(
    ("tags", "status", "age"),
    [
        ({"whichlora.kind": "run"}, "FINISHED", 0),
        ({"whichlora.kind": "run"}, "RUNNING", 0),
        (LAUNCHED | {"whichlora.kind": "study"}, "RUNNING", 0),
        (LAUNCHED | {"whichlora.kind": "launch", "whichlora.result": "x"}, "RUNNING", 0),
        (LAUNCHED, "FINISHED", 0),
        (LAUNCHED, "FAILED", 0),
        (LAUNCHED, "RUNNING", 90_000),
        (LAUNCHED, "RUNNING", -90_000),
        ({}, "RUNNING", 0),
        ({"mlflow.source.type": "LOCAL"}, "RUNNING", 0),
        ({"mlflow.source.type": "PROJECT"}, "RUNNING", 0),
    ],
)
@pytest.mark.parametrize("option", [["--rank", "0"], ["--variant", "loraa"]])
def test_other_runs_are_left_alone(
    store: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tags: dict[str, str],
    status: str,
    age: float,
    option: list[str],
) -> None:
    client = connect()
    run_id = made(client, tags, status=status, age=age)
    before = snapshot(client, run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert main(option) == 2
    tracker = Tracker.for_command()
    tracker.link_launch("result")
    assert tracker.launch is None
    assert snapshot(client, run_id) == before
    assert capsys.readouterr().err.count(f"warning: MLFLOW_RUN_ID={run_id} is ignored, because ") == 1


def test_a_deleted_run_is_left_alone(store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    run_id = made(client, LAUNCHED)
    client.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert mark_launch(client) is None


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"])
@pytest.mark.parametrize("value", ["77", "f" * 32, "no such", "../x", "9" * 40, "१", "-1"])
def test_an_unknown_id_is_a_line(
    store: object,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["--model", tiny_model, "--train_size", "16", "--validation_size", "6", "--test_size", "6"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {variable}={value}: must be the id of")


def test_a_bad_option_under_a_leftover_variable_creates_no_database(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        assert main(["--rank", "0"]) == 2
    finally:
        mlflow.set_tracking_uri(before)
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]
