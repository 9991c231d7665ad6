"""Each final run logs one MLflow model, whatever kills it, which predicts in other processes what the run predicted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import folders
import mlflow
import numpy as np
import pandas as pd
import pytest
from chat_models import FAMILIES, save_chat_model
from mlflow.entities import LoggedModel, LoggedModelStatus
from runs import PAIRS, plan_of, run_of

from whichlora.config.plan import Plan
from whichlora.data.tasks.items import named_texts
from whichlora.run import pipeline
from whichlora.testing.runs import predictions_of
from whichlora.tracking.client import connect
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.runs import Tracker

LOAD = """
import json, sys
import mlflow, pandas as pd
for uri, rows, to in json.load(sys.stdin):
    mlflow.pyfunc.load_model(uri).predict(pd.read_parquet(rows)).to_parquet(to)
"""


def texts(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame([named_texts(item) for item in plan.tests["tl"].items])


def assert_same(found: pd.DataFrame, run_id: str) -> None:
    logged = predictions_of(run_id, "tl")
    columns = [name for name in logged if name.startswith("p_")]
    assert found["predicted"].tolist() == logged["predicted"].tolist()
    np.testing.assert_allclose(found[columns], logged[columns], atol=1e-5)


def models() -> list[LoggedModel]:
    client = connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_logged_models(experiments))


def model_of(run_id: str) -> LoggedModel:
    found = model_of_run(connect(), run_id)
    assert found is not None
    return found


@pytest.mark.slow
def test_models_predict_in_another_process_and_folder(store: Path, tiny_model: str) -> None:
    chat = str(save_chat_model(store / "chat", FAMILIES["qwen3"]))
    task = folders.reviews_task(store / "data", "de", "tr", source="de")
    plans = [
        plan_of(tiny_model),
        plan_of(tiny_model, task="atlas-qa", language="hi", variant="none"),
        plan_of(chat, task=task, language="tr"),
    ]
    run_ids = [run_of(plan).run_id for plan in plans]
    shutil.rmtree(store / "data")
    client = connect()
    client.create_registered_model("reviews")
    source = model_of(run_ids[2])
    version = client.create_model_version("reviews", source.model_uri, run_ids[2], model_id=source.model_id)
    client.set_registered_model_alias("reviews", "champion", version.version)
    uris = [f"models:/{model_of(run_id).model_id}" for run_id in run_ids[:2]]
    uris += ["models:/reviews@champion", f"runs:/{run_ids[0]}/{model_of(run_ids[0]).name}"]
    work = []
    for number, (uri, plan) in enumerate(zip(uris, [*plans, plans[0]], strict=True)):
        texts(plan).to_parquet(store / f"rows-{number}")
        work.append([uri, str(store / f"rows-{number}"), str(store / f"found-{number}")])
    (store / "elsewhere").mkdir()
    command = [sys.executable, "-c", LOAD]
    subprocess.run(command, input=json.dumps(work), cwd=store / "elsewhere", text=True, check=True)
    for (*_, found), run_id in zip(work, [*run_ids, run_ids[0]], strict=True):
        assert_same(pd.read_parquet(found), run_id)


@pytest.mark.slow
def test_a_served_model_answers(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model)
    run_id = run_of(plan).run_id
    model = model_of(run_id)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model.model_uri, "--port", str(port)]
    log = (store / "serve.log").open("w")
    (store / "elsewhere").mkdir()
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--env-manager", "local"],
        cwd=store / "elsewhere",
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},  # has uvicorn
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (store / "serve.log").read_text()
                assert time.monotonic() < deadline, (store / "serve.log").read_text()
                time.sleep(0.3)

        def answers(body: str) -> pd.DataFrame:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                return pd.DataFrame(json.load(response)["predictions"])

        folder = Path(mlflow.artifacts.download_artifacts(model.model_uri))
        example = answers((folder / "serving_input_example.json").read_text())
        assert example["predicted"].tolist() == predictions_of(run_id, "tl")["predicted"].tolist()[:1]
        body = {"dataframe_split": texts(plan).to_dict(orient="split")}
        assert_same(answers(json.dumps(body)), run_id)
        with pytest.raises(urllib.error.HTTPError) as refused:
            answers(json.dumps({"dataframe_split": {"columns": ["premise", "hypothesis"], "data": [["", "x"]]}}))
        assert "row 1: premise is empty" in refused.value.read().decode()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


@pytest.mark.parametrize("variant", ["lora", "full", "none"])
def test_a_run_has_one_model_that_takes_no_second_space(store: Path, tiny_model: str, variant: str) -> None:
    result = run_of(plan_of(tiny_model, variant=variant))
    run, model = connect().get_run(result.run_id), model_of(result.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert {metric.key: metric.value for metric in model.metrics} == result.metrics
    assert len(connect().get_metric_history(result.run_id, "gain/tl")) == 1
    folder = Path(model.artifact_location.removeprefix("file://"))
    own = {path.name for path in folder.iterdir()}
    adapter = Path(run.info.artifact_uri.removeprefix("file://")) / "adapter"
    assert ("adapter" in own) == (variant != "none") == adapter.is_dir()
    for file in adapter.rglob("*"):
        assert file.samefile(folder / "adapter" / file.relative_to(adapter))
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 8000
    assert not any(path in (folder / "MLmodel").read_text() for path in (str(store), tiny_model))
    shutil.rmtree(adapter, ignore_errors=True)  # the model outlives it
    assert mlflow.pyfunc.load_model(model.model_uri).predict(pd.DataFrame({"premise": ["a"], "hypothesis": ["b"]})).size


def test_runs_that_share_an_adapter_have_models_of_their_own(store: Path, tiny_model: str) -> None:
    plans = [plan_of(tiny_model, tl_ratio="0", language=code) for code in ("sw", "hi")]
    run_ids = [run_of(plan).run_id for plan in plans]
    assert connect().get_run(run_ids[1]).data.tags["whichlora.adapter_of"] == run_ids[0]
    assert sorted(model.source_run_id for model in models()) == sorted(run_ids)
    for plan, run_id in zip(plans, run_ids, strict=True):
        found = mlflow.pyfunc.load_model(model_of(run_id).model_uri).predict(texts(plan))
        assert_same(found, run_id)


def test_word_pairs_have_no_model(store: Path, tiny_model: str) -> None:
    run_id = run_of(plan_of(tiny_model, **PAIRS)).run_id
    assert connect().get_run(run_id).data.metrics
    assert models() == []


REFUSED = """
CREATE TRIGGER refused BEFORE INSERT ON logged_models
BEGIN SELECT RAISE(ABORT, 'postgresql://me:hunter22@db does not allow it'); END
"""


@pytest.mark.parametrize("refused", ["model", "files"])
def test_a_run_is_complete_without_its_model(
    store: Path, tiny_model: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, client = plan_of(tiny_model), connect()
    tracker = Tracker(client, "refused")
    place = client.create_experiment("refused", artifact_location=(store / "artifacts").as_uri())
    (store / "artifacts").mkdir()
    database = sqlite3.connect(mlflow.get_tracking_uri().removeprefix("sqlite:///"))
    if refused == "model":
        database.execute(REFUSED)
    else:
        (store / "artifacts" / "models").write_text("not a folder")
    result = pipeline.run(plan, tracker)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == place
    assert result.metrics.items() <= run.data.metrics.items()
    assert client.list_artifacts(result.run_id, "adapter")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "the run is complete, but its model cannot be logged: " in warning
    assert "hunter22" not in warning
    assert model_of_run(client, result.run_id) is None
    assert [model.status for model in models()] == [LoggedModelStatus.FAILED] * (refused == "files")

    database.execute("DROP TRIGGER IF EXISTS refused")
    (store / "artifacts" / "models").unlink(missing_ok=True)
    client.set_terminated(result.run_id, "FAILED")  # as if it was killed before it was marked as finished
    assert pipeline.run(plan, tracker).run_id == result.run_id
    (model,) = models()
    assert model.status is LoggedModelStatus.READY
    assert result.metrics.keys() <= {metric.key for metric in model.metrics}


GAPS = (
    "create_logged_model",
    "log_outputs",
    "log_model_artifacts",
    "link",
    "log_batch",
    "finalize_logged_model",
    "set_terminated",
)
"""What writes to the tracking server while the model is logged, in this order."""
KILLED = """
import os, signal, sys, threading
from mlflow.tracking import MlflowClient
from whichlora.run import pipeline
from whichlora.testing.runs import small_plan
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker

assert threading.active_count() == 1
for line in sys.stdin:
    gap = line.strip()
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
created = []

def die_after(owner, name):
    call = getattr(owner, name)

    def dying(*arguments, **options):
        result = call(*arguments, **options)
        if created:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)

def note_creation(*arguments, call=MlflowClient.create_logged_model, **options):
    if gap == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    created.append(True)
    return call(*arguments, **options)

MlflowClient.create_logged_model = note_creation
if gap != "before":
    die_after(os if gap == "link" else MlflowClient, gap)
sys.stdout = sys.stderr
pipeline.run(small_plan(sys.argv[1]), Tracker(connect(), f"killed {gap}"))
"""
"""Carries out a plan for each gap that it reads, and writes the exit code, in a process that kills itself: before the
model is created, or after a call from then on. Packages are imported once; forks are made where no thread of Python
or of a matrix product runs, whose locks a child would wait for."""


@pytest.mark.slow
def test_a_kill_in_any_gap_leaves_one_model_after_the_resume(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model)
    expected = run_of(plan_of(tiny_model), "reference")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, tiny_model], text=True, env={**os.environ, **one}, **pipes
    ) as killed:
        for gap in ("before", *GAPS):
            tracker = Tracker(connect(), f"killed {gap}")
            print(gap, file=killed.stdin, flush=True)
            assert int(killed.stdout.readline()) == -signal.SIGKILL
            assert len(_models_in(tracker)) == (gap != "before")
            result = pipeline.run(plan, tracker)
            (model,) = _models_in(tracker)
            run = tracker.client.get_run(result.run_id)
            assert model.status is LoggedModelStatus.READY
            assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
            assert run.info.status == "FINISHED"
            test = {key: value for key, value in result.metrics.items() if key.startswith("test/")}
            assert test == {key: expected.metrics[key] for key in test}
            logged = {metric.key: metric.value for metric in model.metrics}
            assert logged == {key: run.data.metrics[key] for key in expected.metrics}
            assert_same(mlflow.pyfunc.load_model(model.model_uri).predict(texts(plan)), result.run_id)


def _models_in(tracker: Tracker) -> list[LoggedModel]:
    experiment = tracker.client.get_experiment_by_name(tracker.experiment)
    return list(tracker.client.search_logged_models([experiment.experiment_id]))
