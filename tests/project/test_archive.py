"""Results that were packed and unpacked elsewhere are unchanged, can be read, and are not computed again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from reviews import reviews_folder
from runs import plan_of, run_of

from whichlora.archive import main, packing
from whichlora.tracking.logged_models import model_of_run


@pytest.fixture(scope="module")
def packed(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_model: str
) -> tuple[Path, pd.DataFrame]:
    """An archive of one run whose folder was deleted, and the run's predictions."""
    home = tmp_path_factory.mktemp("a home with spaces")
    shutil.copy(empty_database, home / "mlflow.db")
    uri, file = f"sqlite:///{home / 'mlflow.db'}", tmp_path_factory.mktemp("post") / "study.tar.xz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.chdir(home)
        mlflow.set_tracking_uri(uri)
        run_id = run_of(plan_of(tiny_model, variant="lora"), experiment="adapter").run_id
        predictions = pd.read_parquet(
            mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="predictions/tl.parquet")
        )
        assert main(["pack", str(file)]) == 0
        patch.chdir("/")
    shutil.rmtree(home)
    return file, predictions


def test_unpacked_results_are_unchanged_and_reused(
    packed: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, predictions = packed
    folder = tmp_path / "elsewhere, 100%"
    assert main(["unpack", str(file), "--folder", str(folder)]) == 0
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    result = run_of(plan_of(tiny_model, variant="lora"), experiment="adapter")
    assert "Already done" in capsys.readouterr().err
    found = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="predictions/tl.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(found), predictions)
    # A new run is stored in the same folder.
    other = run_of(plan_of(tiny_model, variant="lora", seed=7))
    uri = mlflow.MlflowClient().get_run(other.run_id).info.artifact_uri
    assert uri.startswith(folder.as_uri())
    assert (folder / "mlartifacts" / "tests" / other.run_id / "artifacts" / "adapter").is_dir()


def test_an_archive_contains_no_absolute_paths_and_no_adapters(packed: tuple[Path, pd.DataFrame]) -> None:
    with tarfile.open(packed[0]) as tar:
        names = tar.getnames()
        database = tar.extractfile("mlflow.db").read()
    assert any(name.endswith("predictions/en.parquet") for name in names)
    assert not any("/artifacts/adapter/" in name for name in names)
    assert any(name.startswith("mlartifacts/adapter/") for name in names)  # an experiment may have this name
    for part in (b"a home with spaces", b"a%20home"):
        assert part not in database


@pytest.mark.slow
def test_files_of_data_sets_are_packed_by_their_names(store: Path, tiny_model: str) -> None:
    folder = store / "data of a user"
    task = reviews_folder(folder)
    run_of(plan_of(tiny_model, task=task, language="tr", data_dir=str(folder)))
    assert main(["pack", "named.tar"]) == 0
    assert main(["unpack", "named.tar", "--folder", "new"]) == 0
    with sqlite3.connect(store / "new" / "mlflow.db") as database:
        sources = [json.loads(text) for (text,) in database.execute("SELECT dataset_source FROM datasets")]
    assert {source["data_dir"] for source in sources} == {folder.name}
    assert {file for source in sources for file in source["read"]} >= {"train-tr.csv", "test-tr.csv", "test-de.csv"}
    with sqlite3.connect(store / "mlflow.db") as database:
        (original,) = database.execute("SELECT dataset_source FROM datasets").fetchone()
    assert str(folder) in original


@pytest.mark.slow
def test_adapters_are_packed_on_request_with_a_model_that_predicts(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run_of(plan_of(tiny_model, variant="lora")).run_id
    rows = pd.DataFrame({"premise": ["a", "b"], "hypothesis": ["c", "d"]})
    expected = mlflow.pyfunc.load_model(uri_of(run_id)).predict(rows)
    other = store / "mlartifacts" / "tests" / "models" / uri_of(run_id).partition("/")[2] / "artifacts" / "other"
    other.mkdir()
    (other / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    (other / "model.pkl").write_text("x")
    assert main(["pack", "with.tar", "--adapters", "true"]) == 0
    with tarfile.open("with.tar") as tar:
        assert sum(name.endswith("adapter/adapter_model.safetensors") for name in tar.getnames()) == 1
        assert not any("/other/" in name for name in tar.getnames())
    assert main(["unpack", "with.tar", "--folder", "new"]) == 0
    first, second = (store / "new").rglob("adapter_model.safetensors")
    assert first.samefile(second)
    shutil.move(store / "mlartifacts", store / "gone")
    monkeypatch.chdir("new")
    mlflow.set_tracking_uri(f"sqlite:///{store / 'new' / 'mlflow.db'}")
    pd.testing.assert_frame_equal(mlflow.pyfunc.load_model(uri_of(run_id)).predict(rows), expected)
    moved = store / "moved"
    shutil.move(store / "new", moved)
    monkeypatch.chdir(moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")
    assert main(["relocate"]) == 0
    mlflow.set_tracking_uri(f"sqlite:///{moved / 'mlflow.db'}")
    pd.testing.assert_frame_equal(mlflow.pyfunc.load_model(uri_of(run_id)).predict(rows), expected)


@pytest.mark.slow
def test_a_running_study_is_packed_again_and_again_and_continued_elsewhere_after_a_kill(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichlora.experiment.command import main as experiment

    monkeypatch.setenv("WHICHLORA_GRACE_SECONDS", "5")
    grid = f"""
        name: grid
        defaults: {{model: {tiny_model}, language: [sw, ur], tl_ratio: [0, 0.5], seed: 1}}
        arms: [{{variant: lora, train_size: 48, epochs: 3, validation_size: 3, test_size: 6}}]
    """
    Path("grid.yaml").write_text(textwrap.dedent(grid))
    command = [sys.executable, "-m", "whichlora.experiment", "--file", "grid.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline, packs = time.monotonic() + 240, 0
    try:
        while not runs_of("grid", "FINISHED") or not runs_of("grid", "RUNNING"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            if Path("optuna.db").exists():
                assert main(["pack", "study.tar.gz"]) == 0
                packs += 1
            time.sleep(0.5)
        assert main(["pack", "study.tar.gz"]) == 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert packs > 0
    with tarfile.open("study.tar.gz") as tar:
        assert not any("adapter_model" in name or "input_example" in name for name in tar.getnames())
    elsewhere = store / "elsewhere"
    assert main(["unpack", "study.tar.gz", "--folder", str(elsewhere)]) == 0
    shutil.copy("grid.yaml", elsewhere)
    shutil.rmtree(store / "mlartifacts")
    shutil.rmtree(store / "whichlora-work")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{elsewhere / 'mlflow.db'}")
    mlflow.set_tracking_uri(uri)
    before = runs_of("grid", "FINISHED")
    assert before
    assert experiment(["--file", "grid.yaml"]) == 0
    after = runs_of("grid", "FINISHED")
    assert len(after) == 4
    assert not runs_of("grid", "RUNNING")
    assert {run: after[run] for run in before} == before


def runs_of(experiment: str, status: str) -> dict[str, int]:
    """Return the end times of an experiment's runs by id."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return {}
    query = f"tags.`whichlora.kind` = 'run' and attributes.status = '{status}'"
    return {run.info.run_id: run.info.end_time for run in client.search_runs([found.experiment_id], query)}


def uri_of(run_id: str) -> str:
    model = model_of_run(mlflow.MlflowClient(), run_id)
    assert model is not None
    return str(model.model_uri)


def test_bad_calls_are_refused(
    packed: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "mlflow.db" in refused("pack", "none.tar")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in refused("pack", "none.tar")
    (tmp_path / "text.tar").write_text("no archive")
    assert "cannot be read" in refused("unpack", "text.tar", "--folder", "new")
    assert not Path("new").exists()
    assert "folder=" in refused("unpack", str(packed[0]), "--folder", "text.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text.tar", arcname="text")
    assert "has no mlflow.db" in refused("unpack", "other.tar", "--folder", "new")
    for name, kind in (("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "other.tar", "w") as tar:
            tar.add(tmp_path / "text.tar", arcname="mlflow.db")
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/"
            tar.addfile(member)
        assert f"{name} is not a file" in refused("unpack", "other.tar", "--folder", "new")
        assert not Path("new").exists()
    (tmp_path / "mlflow.db").touch()
    assert "already" in refused("unpack", str(packed[0]), "--folder", str(tmp_path))


def test_a_folder_that_is_deleted_meanwhile_stops_no_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of an adapter vanishes between the listing of its parent and its own."""
    for place in ("run/adapter/part", "model/adapter/part"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "weights.safetensors").touch()
    scan = os.scandir

    def vanishing(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("part") and Path(path).exists():
            Path(path).rename(tmp_path / f"gone-{Path(path).parts[-3]}")
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    packing._is_linked("model", "run", tmp_path)
    assert not packing._files(["run"], tmp_path, without_adapter=[], examples=True)[0]
    monkeypatch.undo()
    for place in ("run/adapter", "model/adapter"):
        (tmp_path / place / "weights.safetensors").touch()
    assert not packing._is_linked("model", "run", tmp_path)
    (tmp_path / "run/adapter/weights.safetensors").unlink()
    assert not packing._is_linked("model", "run", tmp_path)
    os.link(tmp_path / "model/adapter/weights.safetensors", tmp_path / "run/adapter/weights.safetensors")
    assert packing._is_linked("model", "run", tmp_path)
