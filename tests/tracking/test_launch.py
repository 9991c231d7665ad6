"""`mlflow run` as users call it: a launch, and the run that holds its results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from launching import PROJECT, launch
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

OPTIONS = {"train_size": "24", "validation_size": "6", "test_size": "9"}


def runs_of(folder: Path, kind: str) -> list[Run]:
    return [run for run in all_runs(folder) if run.data.tags.get("whichlora.kind") == kind]


def all_runs(folder: Path) -> list[Run]:
    client = client_of(folder)
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(everywhere, run_view_type=ViewType.ALL))


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def experiment_of(folder: Path, run: Run) -> str:
    return str(client_of(folder).get_experiment(run.info.experiment_id).name)


def leftovers() -> set[str]:
    """Return the files in the project that only a run in the wrong folder would leave there."""
    return {name for name in ("mlflow.db", "mlartifacts", "mlruns", "whichlora-work") if (PROJECT / name).exists()}


@pytest.mark.slow
def test_a_launch_from_another_folder_links_to_the_run_with_its_results(tmp_path: Path, tiny_model: str) -> None:
    before = leftovers()
    model = shutil.copytree(tiny_model, tmp_path / "tiny model")  # the space must survive the shell
    call = tmp_path / "call"
    call.mkdir()
    status, text = launch(call, variant="none", model=str(model), **OPTIONS)
    assert status == 0, text
    assert (call / "mlflow.db").is_file()
    assert leftovers() == before

    (started,), (result,) = runs_of(call, "launch"), runs_of(call, "run")
    assert started.info.status == result.info.status == "FINISHED"
    assert started.data.tags["whichlora.result"] == result.info.run_id
    assert result.data.tags["whichlora.launch"] == started.info.run_id
    assert started.data.metrics == {}
    assert started.data.params["seed"] == "42"
    assert started.data.params["rank"] == started.data.params["difficulty"] == "auto"  # as typed
    assert result.data.params["difficulty"] == "normal"  # as resolved
    assert result.data.params["model"] == str(model)
    assert "test/tl/f1" in result.data.metrics
    assert experiment_of(call, result) == "whichlora"
    assert result.data.tags["whichlora.experiment"] == "whichlora"
    assert result.info.run_id in text
    (spec,) = call.rglob("spec.json")
    assert result.info.run_id in str(spec)
    assert len(all_runs(call)) == 4  # with the base's English and Swahili


@pytest.mark.slow
def test_a_bad_option_fails_the_launch_and_makes_no_run(tmp_path: Path) -> None:
    status, text = launch(tmp_path, variant="loraa")
    assert status != 0
    assert "variant" in text
    assert "loraa" in text
    assert "adalora" in text  # what is allowed
    assert "Traceback (most recent call last)" not in text
    (started,) = all_runs(tmp_path)
    assert started.info.status == "FAILED"
    assert started.data.metrics == {}
    assert "whichlora.result" not in started.data.tags
    assert runs_of(tmp_path, "run") == []


@pytest.mark.slow
def test_a_failed_launch_is_tagged_as_a_launch_too(tmp_path: Path) -> None:
    launch(tmp_path, rank="0")
    (started,) = all_runs(tmp_path)
    assert started.info.status == "FAILED"
    assert started.data.tags["whichlora.kind"] == "launch"


@pytest.mark.slow
def test_a_second_launch_links_to_the_finished_run(tmp_path: Path, tiny_model: str) -> None:
    for _ in range(2):
        status, text = launch(tmp_path, variant="lora", model=tiny_model, batch_size="8", **OPTIONS)
        assert status == 0, text
    (result,) = runs_of(tmp_path, "run")
    launches = runs_of(tmp_path, "launch")
    assert len(launches) == 2
    assert {run.data.tags["whichlora.result"] for run in launches} == {result.info.run_id}
    first = min(launches, key=lambda run: run.info.start_time)
    assert result.data.tags["whichlora.launch"] == first.info.run_id
    assert {run.info.status for run in launches} == {"FINISHED"}
    assert [run.data.metrics for run in launches] == [{}, {}]


@pytest.mark.slow
def test_results_go_to_the_experiment_named_on_the_command_line(tmp_path: Path, tiny_model: str) -> None:
    status, text = launch(tmp_path, "--experiment-name", "my study", variant="none", model=tiny_model, **OPTIONS)
    assert status == 0, text
    (started,), (result,) = runs_of(tmp_path, "launch"), runs_of(tmp_path, "run")
    assert experiment_of(tmp_path, result) == experiment_of(tmp_path, started) == "my study"
    assert result.data.tags["whichlora.experiment"] == "my study"
    assert started.data.metrics == {}
    assert started.data.tags["whichlora.result"] == result.info.run_id


@pytest.mark.slow
def test_the_command_line_beats_the_environment_in_naming_the_experiment(tmp_path: Path, tiny_model: str) -> None:
    flags = ("--experiment-name", "typed")
    environment = {"MLFLOW_EXPERIMENT_NAME": "exported"}
    status, text = launch(tmp_path, *flags, environment=environment, variant="none", model=tiny_model, **OPTIONS)
    assert status == 0, text
    (started,), (result,) = runs_of(tmp_path, "launch"), runs_of(tmp_path, "run")
    assert experiment_of(tmp_path, started) == "typed"
    assert experiment_of(tmp_path, result) == "typed"


@pytest.mark.slow
def test_a_launch_into_a_database_elsewhere_leaves_nothing_in_the_folder_of_the_call(
    tmp_path: Path, tiny_model: str
) -> None:
    folder, call = tmp_path / "my results", tmp_path / "call"
    folder.mkdir()
    call.mkdir()
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    status, text = launch(call, environment=environment, variant="none", model=tiny_model, **OPTIONS)
    assert status == 0, text
    (result,) = runs_of(folder, "run")
    (spec,) = folder.rglob("spec.json")
    assert result.info.run_id in str(spec)
    assert not (call / "mlflow.db").exists()
    assert not list(call.rglob("spec.json"))


@pytest.mark.slow
def test_a_launched_probe_of_a_run_leaves_all_that_was_promised(tmp_path: Path, tiny_model: str) -> None:
    status, text = launch(tmp_path, variant="lora", model=tiny_model, batch_size="8", **OPTIONS)
    assert status == 0, text
    (source,) = runs_of(tmp_path, "run")
    status, text = launch(tmp_path, "-e", "probe", run_id=source.info.run_id, agreement="0", top_k="2")
    assert status == 0, text
    (probe,) = runs_of(tmp_path, "probe")
    assert probe.info.run_id in text
    started = max(runs_of(tmp_path, "launch"), key=lambda run: run.info.start_time)
    assert probe.info.status == started.info.status == "FINISHED"
    assert probe.data.tags["whichlora.source"] == source.info.run_id
    assert probe.data.tags["whichlora.launch"] == started.info.run_id
    assert started.data.tags["whichlora.result"] == probe.info.run_id
    assert started.data.params["top_k"] == "2"
    assert started.data.params["detector"] == "auto"  # as typed
    assert started.data.metrics == {}

    params = probe.data.params
    expected = {
        "kind": "language",
        "language": "sw",
        "items": "9",
        "detector": "cld3",
        "top_k": "2",
        "final_norm": "True",
    }
    assert {name: params[name] for name in expected} == expected
    assert (params["source/variant"], params["source/seed"]) == ("lora", "42")
    assert params["source_fingerprint"] == source.data.tags["whichlora.fingerprint"]

    client = client_of(tmp_path)
    folder = Path(client.download_artifacts(probe.info.run_id, "", str(tmp_path)))
    layers = pd.read_parquet(folder / "layers.parquet")
    assert list(layers.columns) == ["layer", "measure", "value", "low", "high", "n"]
    measures = {f"{level}/{kind}" for level in ("token", "sequence") for kind in ("english", "target", "other")}
    assert set(zip(layers["layer"], layers["measure"], strict=True)) == {
        (i, m) for i in (-1, 0, 1, 2) for m in measures
    }
    assert layers["value"].between(layers["low"] - 1e-9, layers["high"] + 1e-9).all()
    assert set(layers["n"]) == {9}
    for name in ("languages.png", "languages.svg"):
        assert (folder / "figures" / name).stat().st_size > 1000
    assert len(pd.read_parquet(folder / "items.parquet")) == 9 * 4
    history = client.get_metric_history(probe.info.run_id, "language/other")
    assert [point.step for point in history] == [0, 1, 2]


@pytest.mark.slow
def test_relative_paths_are_those_of_the_caller(tmp_path: Path, tiny_model: str) -> None:
    """Of options and of variables; the project's folder, to which `mlflow run` changes, is another one."""
    before = leftovers()
    call = tmp_path / "a call"
    shutil.copytree(tiny_model, call / "tiny")
    (tmp_path / "results").mkdir()
    environment = {"MLFLOW_TRACKING_URI": "sqlite:///../results/mlflow.db", "WHICHLORA_WORK": "work"}
    status, text = launch(call, environment=environment, variant="none", model="tiny", **OPTIONS)
    assert status == 0, text
    (started,), (result,) = runs_of(tmp_path / "results", "launch"), runs_of(tmp_path / "results", "run")
    assert started.data.tags["whichlora.result"] == result.info.run_id
    assert (call / "work").is_dir()
    assert {path.name for path in call.iterdir()} == {"tiny", "work"}
    assert leftovers() == before


@pytest.mark.slow
def test_relative_files_of_every_entry_point_are_those_of_the_caller(tmp_path: Path, tiny_model: str) -> None:
    before = leftovers()
    shutil.copytree(tiny_model, tmp_path / "tiny")
    sizes = {name: int(value) for name, value in OPTIONS.items()}
    grid = {"name": "grid", "defaults": {**sizes, "model": "tiny", "seed": [1, 2]}, "arms": [{"variant": "lora"}]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    (tmp_path / "space.yaml").write_text("rank: [1, 2]\n")
    (tmp_path / "claims.yaml").write_text((PROJECT / "analysis" / "claims" / "paper.yaml").read_text())
    environment = {"WHICHLORA_STORAGE": "sqlite:///queue.db"}
    for entry, options in {
        "experiment": {"file": "grid.yaml", "workers": "2"},
        "analyze": {"experiment": "grid", "output": "out", "claims": "claims.yaml"},
        "tune": {"model": "tiny", "space": "space.yaml", "trials": "1", "pruner": "none", **OPTIONS},
        "probe": {"model": "tiny", "items": "3"},
    }.items():
        status, text = launch(tmp_path, "-e", entry, environment=environment, **options)
        assert status == 0, text
    assert len(runs_of(tmp_path, "run")) == 2
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "queue.db").is_file()
    assert not (tmp_path / "optuna.db").exists()
    assert leftovers() == before
