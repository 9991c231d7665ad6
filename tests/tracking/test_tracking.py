"""Runs in MLflow, tested with real databases, a real server and several processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import Run, RunStatus, ViewType
from mlflow.tracking import MlflowClient

from whichlora.__main__ import main as whichlora
from whichlora.config.spec import RunSpec
from whichlora.run.command import main
from whichlora.tracking.client import connect, default_experiment, experiment_id, work_folder
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker, already_done
from whichlora.tracking.sqlite import tracking_state

SIZES = ["--train_size", "24", "--validation_size", "6", "--test_size", "9", "--batch_size", "8"]
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(module: str, *options: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m module` without the MLflow and whichlora variables of this process."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    return subprocess.Popen(
        [sys.executable, "-m", module, *options],
        cwd=cwd,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for all, check that each exits with 0, and return the output of each, stdout and stderr joined."""
    texts = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=300)
            texts.append(out + err)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n\n".join(t[-3000:] for t in texts)
    return texts


def use(folder: Path, patch: pytest.MonkeyPatch) -> MlflowClient:
    """Make `folder` and its database those of this process, and return a client of the database."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    return MlflowClient(tracking_uri=uri)


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(client: MlflowClient, kind: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(everywhere, f"tags.`whichlora.kind` = '{kind}'", run_view_type=view))


def new_log(client: MlflowClient) -> RunLog:
    return Tracker(client, "logs").open("run", "one", {"fingerprint": os.urandom(8).hex()})


def download(client: MlflowClient, run: Run, artifact_path: str, to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    return Path(client.download_artifacts(run.info.run_id, artifact_path, str(to)))


class Finished:
    """One finished LoRA run: the folder of the call, its options, and the run."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder, self.options, self.client = folder, options, client_of(folder)
        (self.run,) = runs_of(self.client, "run")
        self.metrics, self.params, self.tags = self.run.data.metrics, self.run.data.params, self.run.data.tags

    def artifact(self, artifact_path: str) -> Path:
        return download(self.client, self.run, artifact_path, self.folder / "downloads")


@pytest.fixture(scope="module")
def finished(tiny_model: str, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(empty_database, folder / "mlflow.db")
    # A rate at which the answers change, so that the gain is not zero.
    options = ["--model", tiny_model, *SIZES, "--variant", "lora", "--learning_rate", "0.05"]
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        assert main(options) == 0
    return Finished(folder, options)


def spec_of(finished: Finished) -> dict[str, object]:
    spec: dict[str, object] = json.loads(finished.artifact("spec.json").read_text(encoding="utf-8"))
    return spec


# Contents of a finished run


def test_every_spec_field_and_the_versions_are_params(finished: Finished) -> None:
    from importlib.metadata import version

    for name, value in spec_of(finished).items():
        if name == "fingerprint":
            continue
        assert name in finished.params
        if isinstance(value, dict):
            assert all(str(part) in finished.params[name] for part in value.values())
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            assert finished.params[name] == text
    assert finished.params["rank"] == "8"  # as resolved, not `auto`
    for package in ("torch", "transformers", "peft", "mlflow"):
        assert finished.params[f"version/{package}"] == version(package)
    assert {"version/whichlora", "model_revision"} <= finished.params.keys()
    assert finished.params["threads"] == "1"


def test_spec_json_holds_fields_from_which_the_fingerprints_are_recomputed(finished: Finished) -> None:
    values = spec_of(finished)
    written = values.pop("fingerprint")
    identity = {k: v for k, v in values.items() if k != "model"}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == written == finished.tags["whichlora.fingerprint"]
    assert RunSpec.from_dict(values).training_fingerprint == finished.tags["whichlora.training_fingerprint"]


def test_the_run_is_tagged_and_named(finished: Finished) -> None:
    assert finished.run.info.status == "FINISHED"
    assert finished.tags["whichlora.kind"] == "run"
    assert finished.tags["whichlora.experiment"] == "whichlora"
    experiment = finished.client.get_experiment_by_name("whichlora")
    assert experiment is not None
    assert finished.run.info.experiment_id == experiment.experiment_id
    assert not {"whichlora.launch", "whichlora.error", "whichlora.resumed"} & finished.tags.keys()
    assert "lora" in finished.run.info.run_name


def test_the_loss_is_logged_at_each_step_and_is_a_cross_entropy(finished: Finished) -> None:
    history = finished.client.get_metric_history(finished.run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert all(0 < metric.value < 100 for metric in history)
    assert len({metric.value for metric in history}) == 3


@pytest.mark.parametrize("role", ["en", "tl"])
def test_test_validation_and_base_scores_are_metrics_and_gain_is_their_exact_difference(
    finished: Finished, role: str
) -> None:
    m = finished.metrics
    for name in (f"test/{role}/f1", f"test/{role}/macro_f1", f"validation/{role}/f1", f"base/{role}/f1"):
        assert 0 <= m[name] <= 1
    assert m[f"gain/{role}"] == m[f"test/{role}/f1"] - m[f"base/{role}/f1"]
    (base,) = [run for run in runs_of(finished.client, "base") if f"test/{role}/f1" in run.data.metrics]
    assert base.info.status == "FINISHED"
    assert base.data.metrics[f"test/{role}/f1"] == m[f"base/{role}/f1"]
    assert base.data.params["language"] == {"en": "en", "tl": "sw"}[role]


def test_some_gain_is_not_zero_so_that_the_tests_on_it_can_fail(finished: Finished) -> None:
    assert finished.metrics["gain/en"] or finished.metrics["gain/tl"]


def test_the_adapter_the_training_and_the_host_are_measured(finished: Finished) -> None:
    m = finished.metrics
    # Rank 8 on q, k, v, o, gate, up and down of three blocks, 32 wide, with 16-wide keys and values and a 64-wide MLP.
    assert m["adapter/trainable_parameters"] == 3 * 8 * (64 + 48 + 48 + 64 + 96 + 96 + 96)
    assert 0 < m["adapter/trainable_percent"] < 100
    assert m["train/seconds"] > 0
    assert m["train/examples_per_second"] == pytest.approx(24 / m["train/seconds"])
    assert m["train/best_step"] == 3
    assert m["host/memory_max_mb"] > 100  # a process that has imported torch is larger
    assert m["host/cpu_mean"] >= 0
    for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes", "process_memory_usage_megabytes"):
        curve = finished.client.get_metric_history(finished.run.info.run_id, f"system/{name}")
        assert len(curve) >= (1 if "utilization" in name else 2)  # the first sample has no utilisation
        assert max(point.timestamp for point in curve) < finished.run.info.end_time
    if not torch.cuda.is_available():
        assert not [name for name in m if name.startswith("gpu/")]


@pytest.mark.parametrize("role", ["en", "tl"])
def test_predictions_are_kept_item_by_item_and_give_the_logged_scores(finished: Finished, role: str) -> None:
    from sklearn.metrics import f1_score

    frame = pd.read_parquet(finished.artifact(f"predictions/{role}.parquet"))
    columns = [f"p_{label}" for label in LABELS]
    assert set(frame.columns) == {"id", "gold", "predicted", *columns}
    assert len(frame) == 9
    assert frame["id"].is_unique
    assert frame["gold"].value_counts().to_dict() == dict.fromkeys(LABELS, 3)
    np.testing.assert_allclose(frame[columns].sum(axis=1), 1, rtol=1e-9)
    assert [name.removeprefix("p_") for name in frame[columns].idxmax(axis=1)] == list(frame["predicted"])
    assert (frame["gold"] == frame["predicted"]).mean() == finished.metrics[f"test/{role}/f1"]
    macro = f1_score(frame["gold"], frame["predicted"], labels=list(LABELS), average="macro", zero_division=0)
    assert macro == pytest.approx(finished.metrics[f"test/{role}/macro_f1"])


def test_items_of_a_parallel_task_have_the_same_ids_in_both_prediction_files(finished: Finished) -> None:
    frames = [pd.read_parquet(finished.artifact(f"predictions/{role}.parquet")) for role in ("en", "tl")]
    assert list(frames[0]["id"]) == list(frames[1]["id"])
    assert list(frames[0]["gold"]) == list(frames[1]["gold"])


def test_the_adapter_loads_with_plain_peft_on_the_plain_model(finished: Finished, tiny_model: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), str(finished.artifact("adapter"))
    )
    trained = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    assert len(trained) == 21
    assert all(p.abs().max() > 0 for p in trained.values())


def test_each_split_is_a_dataset_input_with_its_context_and_size(finished: Finished) -> None:
    inputs = finished.client.get_run(finished.run.info.run_id).inputs.dataset_inputs
    rows = {}
    for entry in inputs:
        (context,) = [tag.value for tag in entry.tags if tag.key == "mlflow.data.context"]
        rows[context] = (json.loads(entry.dataset.profile)["num_rows"], entry.dataset.digest)
        assert entry.dataset.name == "atlas-nli"
    assert {context: n for context, (n, _) in rows.items()} == {
        "train": 24,
        "test/en": 9,
        "test/tl": 9,
        "validation/en": 6,
        "validation/tl": 6,
    }
    assert len({digest for _, digest in rows.values()}) == 5
    assert str(spec_of(finished)["train_digest"]).startswith(rows["train"][1])


def test_nothing_of_a_finished_run_stays_in_the_work_folder(finished: Finished) -> None:
    assert not [path for path in (finished.folder / "whichlora-work").iterdir() if path.is_dir()]


def test_a_qa_run_has_exact_match_and_no_probabilities(
    store: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = use(store, monkeypatch)
    assert main(["--model", tiny_model, *SIZES, "--task", "atlas-qa"]) == 0
    (run,) = runs_of(client, "run")
    for role in ("en", "tl"):
        frame = pd.read_parquet(download(client, run, f"predictions/{role}.parquet", tmp_path / "downloads"))
        assert list(frame.columns) == ["id", "gold", "predicted", "language_consistency", "gold_language_consistency"]
        assert len(frame) == 9
        exact = (frame["gold"].str.lower() == frame["predicted"].str.lower()).mean()
        assert run.data.metrics[f"test/{role}/exact_match"] >= exact
        assert 0 <= run.data.metrics[f"test/{role}/exact_match"] <= run.data.metrics[f"test/{role}/f1"]
        assert f"base/{role}/exact_match" in run.data.metrics
        assert f"test/{role}/macro_f1" not in run.data.metrics


# The same spec again


def test_a_second_identical_command_names_the_finished_run_and_makes_none(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(finished.folder, monkeypatch)
    before = {run.info.run_id for kind in ("run", "base") for run in runs_of(finished.client, kind)}
    assert main(finished.options) == 0
    assert finished.run.info.run_id in capsys.readouterr().out
    assert {run.info.run_id for kind in ("run", "base") for run in runs_of(finished.client, kind)} == before
    again = finished.client.get_run(finished.run.info.run_id)
    assert again.info.end_time == finished.run.info.end_time


def test_a_variant_that_trains_nothing_reuses_the_base_scores_and_logs_no_adapter(
    finished: Finished, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = use(finished.folder, monkeypatch)
    bases = {run.info.run_id for run in runs_of(client, "base")}
    assert main(["--model", tiny_model, *SIZES[:-2], "--variant", "none"]) == 0
    assert {run.info.run_id for run in runs_of(client, "base")} == bases
    (run,) = [run for run in runs_of(client, "run") if run.data.params["variant"] == "none"]
    assert run.data.metrics["gain/en"] == run.data.metrics["gain/tl"] == 0
    assert not [name for name in run.data.metrics if name.startswith(("train/", "adapter/", "gpu/"))]
    assert {entry.path for entry in client.list_artifacts(run.info.run_id)} == {"predictions", "spec.json"}
    client.delete_run(run.info.run_id)


def copied(finished: Finished, to: Path, patch: pytest.MonkeyPatch) -> MlflowClient:
    """Copy the database of the finished run to another folder; its artifacts stay where they are."""
    shutil.copy(finished.folder / "mlflow.db", to / "mlflow.db")
    return use(to, patch)


def test_a_deleted_run_is_run_again(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = copied(finished, tmp_path, monkeypatch)
    client.delete_run(finished.run.info.run_id)
    assert main(finished.options) == 0
    (run,) = runs_of(client, "run")
    assert run.info.run_id != finished.run.info.run_id
    assert run.info.status == "FINISHED"
    same = [k for k in finished.metrics if k.startswith(("test/", "validation/", "base/", "gain/"))]
    assert {k: run.data.metrics[k] for k in same} == {k: finished.metrics[k] for k in same}
    assert client.get_run(finished.run.info.run_id).info.lifecycle_stage == "deleted"


def test_an_unfinished_run_is_resumed_when_its_model_has_moved(
    finished: Finished, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is not part of the fingerprint: a copy of the model is the same model."""
    client = copied(finished, tmp_path, monkeypatch)
    client.update_run(finished.run.info.run_id, status="FAILED")
    elsewhere = shutil.copytree(tiny_model, tmp_path / "a copy")
    options = [str(elsewhere) if option == tiny_model else option for option in finished.options]
    assert main(options) == 0
    (run,) = runs_of(client, "run")
    assert run.info.run_id == finished.run.info.run_id
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_two_processes_with_the_same_spec_make_one_run(store: Path, tiny_model: str) -> None:
    uri = os.environ["MLFLOW_TRACKING_URI"]
    options = ["--model", tiny_model, *SIZES, "--variant", "lora"]
    texts = ended([start("whichlora.run", *options, cwd=store, MLFLOW_TRACKING_URI=uri) for _ in range(2)])
    (run,) = runs_of(client_of(store), "run", ViewType.ALL)
    assert run.info.status == "FINISHED"
    assert all(run.info.run_id in text for text in texts)
    assert sum("Already done" in text for text in texts) == 1
    assert [m.step for m in client_of(store).get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]


# Empty folders, and the location of files


@pytest.mark.slow
def test_four_processes_make_one_working_database_in_an_empty_folder(tmp_path: Path) -> None:
    ended([start("whichlora.database", cwd=tmp_path) for _ in range(4)])
    client = client_of(tmp_path)
    experiment = client.create_experiment("first")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "test/en/f1", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"test/en/f1": 0.5}


def test_a_database_that_is_there_is_not_asked_through_mlflow(store: Path) -> None:
    code = "import sys; from whichlora import database; database.main(); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=store, check=True)
    for other in ("", "not a database"):
        (store / "mlflow.db").write_text(other)
        assert tracking_state(store / "mlflow.db") != "complete"


def test_a_schema_that_is_not_mlflow_s_newest_is_left_to_mlflow(store: Path) -> None:
    file = store / "mlflow.db"
    assert tracking_state(file) == "complete"
    with closing(sqlite3.connect(file)) as older:
        older.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")  # its first
        older.commit()
    assert tracking_state(file) != "complete"


@pytest.mark.slow
def test_four_different_runs_at_once_in_an_empty_folder_all_finish(tmp_path: Path, tiny_model: str) -> None:
    options = ["--model", tiny_model, *SIZES, "--variant", "lora", "--seed"]
    ended([start("whichlora.run", *options, str(seed), cwd=tmp_path) for seed in range(4)])
    client = client_of(tmp_path)
    runs = runs_of(client, "run", ViewType.ALL)
    assert sorted(run.data.params["seed"] for run in runs) == ["0", "1", "2", "3"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.info.experiment_id for run in runs}) == 1
    for run in runs:
        assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"adapter", "predictions", "spec.json"}
    bases = runs_of(client, "base", ViewType.ALL)
    assert sorted(run.data.params["language"] for run in bases) == ["en", "sw"]
    assert {run.info.status for run in bases} == {"FINISHED"}


@pytest.mark.parametrize("name", ["plain", "with a space", "C# notes", "año_एक"])
def test_artifacts_and_work_lie_beside_the_database_whatever_its_folder_is_called(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    use(folder, monkeypatch)
    monkeypatch.chdir(elsewhere)
    assert work_folder() == folder / "whichlora-work"
    log = new_log(connect())
    (elsewhere / "out").mkdir()
    (elsewhere / "out" / "note.txt").write_text("found")
    log.artifacts(elsewhere / "out")
    assert [path.read_text() for path in folder.rglob("note.txt")] == ["found"]
    assert {path.name for path in elsewhere.iterdir()} == {"out"}
    assert {path.name for path in tmp_path.iterdir()} == {name, "elsewhere"}


@pytest.mark.slow
def test_a_run_called_from_another_folder_leaves_everything_beside_the_database(
    tmp_path: Path, tiny_model: str
) -> None:
    folder, elsewhere = tmp_path / "my results", tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ["--model", tiny_model, *SIZES, "--variant", "lora"]
    ended([start("whichlora.run", *options, cwd=elsewhere, MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}")])
    assert not list(elsewhere.iterdir())
    (run,) = runs_of(client_of(folder), "run")
    (spec,) = folder.rglob("spec.json")
    assert run.info.run_id in str(spec)
    assert {path.name for path in folder.glob("*")} == {"mlflow.db", "mlflow.db.lock", "mlartifacts", "whichlora-work"}


def test_the_work_folder_can_be_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHICHLORA_WORK", str(store / "scratch"))
    assert work_folder() == store / "scratch"


# A server


@pytest.mark.slow
def test_a_run_through_a_server_finishes_and_its_artifacts_come_back_through_it(
    server: str, tiny_model: str, tmp_path: Path
) -> None:
    call = tmp_path / "call"
    call.mkdir()
    options = ["--model", tiny_model, *SIZES, "--variant", "lora"]
    (text,) = ended([start("whichlora.run", *options, cwd=call, MLFLOW_TRACKING_URI=server)])
    client = MlflowClient(tracking_uri=server)
    (run,) = runs_of(client, "run")
    assert run.info.status == "FINISHED"
    assert run.info.run_id in text
    assert {path.name for path in call.iterdir()} <= {"whichlora-work"}  # neither a database nor artifacts
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)  # the artifact client asks this one
    try:
        spec = json.loads(download(client, run, "spec.json", tmp_path / "got").read_text(encoding="utf-8"))
        assert spec["fingerprint"] == run.data.tags["whichlora.fingerprint"]
        adapter = download(client, run, "adapter", tmp_path / "got")
        assert (adapter / "adapter_model.safetensors").stat().st_size > 1000
        frame = pd.read_parquet(download(client, run, "predictions/tl.parquet", tmp_path / "got"))
    finally:
        mlflow.set_tracking_uri(before)
    assert (frame["gold"] == frame["predicted"]).mean() == run.data.metrics["test/tl/f1"]
    assert len(runs_of(client, "base")) == 2


# RunLog and Tracker


def test_an_exception_marks_the_run_failed_with_the_error(store: Path) -> None:
    client = connect()
    log = new_log(client)
    with pytest.raises(ValueError, match="out of range"), log.guarded():
        raise ValueError("out of range")
    run = client.get_run(log.run_id)
    assert run.info.status == "FAILED"
    assert run.info.end_time
    assert run.data.tags["whichlora.error"] == "ValueError: out of range"


def test_an_error_as_long_as_a_traceback_is_cut_and_still_raised(store: Path) -> None:
    client = connect()
    log = new_log(client)
    with pytest.raises(RuntimeError), log.guarded():
        raise RuntimeError("é" * 20_000)
    run = client.get_run(log.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["whichlora.error"].startswith("RuntimeError: éé")


def test_an_interrupt_marks_the_run_killed(store: Path) -> None:
    client = connect()
    log = new_log(client)
    with pytest.raises(KeyboardInterrupt), log.guarded():
        raise KeyboardInterrupt
    assert client.get_run(log.run_id).info.status == "KILLED"


def test_success_after_a_failure_clears_the_error(store: Path) -> None:
    client = connect()
    log = new_log(client)
    with pytest.raises(ValueError, match="first"), log.guarded():
        raise ValueError("first")
    with log.guarded():
        pass
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert "whichlora.error" not in run.data.tags


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_an_unfinished_run_is_opened_again_and_only_that_of_the_same_fingerprint(store: Path, status: str) -> None:
    client = connect()
    tracker = Tracker(client, "logs")
    first = tracker.open("run", "first", {"fingerprint": "a"})
    client.update_run(first.run_id, status=status)
    again = tracker.open("run", "first", {"fingerprint": "a"})
    assert again.run_id == first.run_id
    run = client.get_run(first.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["whichlora.resumed"] == "true"
    others = [
        tracker.open("run", "other", {"fingerprint": "b"}),
        tracker.open("trial", "other", {"fingerprint": "a"}),
        Tracker(client, "elsewhere").open("run", "other", {"fingerprint": "a"}),
    ]
    assert len({first.run_id, *(other.run_id for other in others)}) == 4


def test_a_finished_run_is_found_and_not_opened_again(store: Path) -> None:
    client = connect()
    tracker = Tracker(client, "logs")
    with tracker.open("run", "first", {"fingerprint": "a"}).guarded() as first:
        assert tracker.find("run", status="FINISHED", fingerprint="a") is None
    found = tracker.find("run", status="FINISHED", fingerprint="a")
    assert found is not None
    assert found.info.run_id == first.run_id
    assert RunStatus.is_terminated(RunStatus.from_string(found.info.status))
    assert tracker.find("run", status="FINISHED", fingerprint="b") is None
    assert tracker.find("base", status="FINISHED", fingerprint="a") is None
    assert tracker.open("run", "second", {"fingerprint": "a"}).run_id != first.run_id


def test_what_is_already_done_is_named_with_a_command_that_lists_it(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(connect(), "two words")
    with tracker.open("run", "first", {"fingerprint": "a"}).guarded() as log:
        pass
    finished = tracker.find("run", status="FINISHED", fingerprint="a")
    assert finished is not None
    text = already_done("run", finished)
    assert text.startswith(f"Already done: run {log.run_id} of {datetime.now():%Y-%m-%d} ")
    _, *arguments = shlex.split(text.split("`")[1])
    assert whichlora([*arguments, "--form", "json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["run_id"] == log.run_id


def test_a_series_gets_only_later_points_after_a_restart(store: Path) -> None:
    client = connect()
    log = new_log(client)
    log.series("train/loss", [(1, 3.0), (2, 2.5)])
    restarted = RunLog(client, log.run_id)
    restarted.series("train/loss", [(1, 99.0), (2, 99.0), (3, 2.0)])
    restarted.series("train/loss", [])
    restarted.series("train/other", [(1, 7.0)])
    history = client.get_metric_history(log.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.5), (3, 2.0)]
    assert [m.value for m in client.get_metric_history(log.run_id, "train/other")] == [7.0]


def test_a_long_param_is_cut_and_logging_the_same_again_is_allowed(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")  # MLflow would cut it too
    client = connect()
    log = new_log(client)
    for _ in range(2):
        log.params({"long": "x" * 7000, "names": ["a", "b"], "layers": (0, 1), "nothing": None, "share": 0.5})
    params = client.get_run(log.run_id).data.params
    assert params["long"] == "x" * 6000
    assert params | {"long": ""} == {"long": "", "names": "a,b", "layers": "0,1", "nothing": "None", "share": "0.5"}


def test_more_params_metrics_and_points_than_one_request_takes_are_all_logged(store: Path) -> None:
    client = connect()
    log = new_log(client)
    log.params({f"p{i}": i for i in range(150)})
    log.metrics({f"m{i}": i / 7 for i in range(1250)})
    log.tags({f"t{i}": str(i) for i in range(120)})
    log.series("train/loss", [(step, 1 / step) for step in range(1, 1102)])
    data = client.get_run(log.run_id).data
    assert data.params == {f"p{i}": str(i) for i in range(150)}
    assert {k: v for k, v in data.metrics.items() if k != "train/loss"} == {f"m{i}": i / 7 for i in range(1250)}
    assert all(data.tags[f"whichlora.t{i}"] == str(i) for i in range(120))
    history = client.get_metric_history(log.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in range(1, 1102)]


def test_results_go_to_the_experiment_that_the_environment_names(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    assert default_experiment(client) == "whichlora"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert default_experiment(client) == "whichlora"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id(client, "by id"))
    assert default_experiment(client) == "by id"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert default_experiment(client) == "by name"


def test_an_experiment_is_made_once(store: Path) -> None:
    client = connect()
    assert experiment_id(client, "one") == experiment_id(client, "one")
    assert experiment_id(client, "one") != experiment_id(client, "two")
