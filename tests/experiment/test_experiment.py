"""Experiments: reading the file, the plan, shared adapters, and resuming after any stop, with real processes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from whichlora.config.cli import format_duration
from whichlora.errors import LostLeaseError, OptionError
from whichlora.experiment.command import main
from whichlora.experiment.grid import read_grid
from whichlora.experiment.progress import survey_runs
from whichlora.tracking.client import connect
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker

SMALL = {
    "train_size": 16,
    "validation_size": 3,
    "test_size": 6,
    "batch_size": 8,
    "learning_rate": 0.01,
    "language": ["sw", "ur"],
    "tl_ratio": [0, 0.5],
}


def write(folder: Path, model: str, **changes: Any) -> str:
    content = {
        "name": "grid",
        "about": "A test.",
        "defaults": {"model": model, **SMALL},
        "arms": [{"variant": "lora"}, {"variant": "vera"}],
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)


def runs(kind: str = "run", experiment: str = "grid") -> list[Any]:
    client = MlflowClient()
    entity = client.get_experiment_by_name(experiment)
    return client.search_runs([entity.experiment_id], f"tags.`whichlora.kind` = '{kind}'") if entity else []


def test_the_grid_is_every_arm_with_every_combination_by_seed_first(tmp_path: Path, tiny_model: str) -> None:
    defaults = {"model": tiny_model, **SMALL, "seed": [1, 2]}
    arms = [{"variant": ["lora", "dora"]}, {"variant": "vera", "tl_ratio": 1, "source": "nowhere"}]
    grid = read_grid(write(tmp_path, tiny_model, defaults=defaults, arms=arms))
    assert len(grid.plans) == 2 * (2 * 2 * 2 + 2)
    assert [plan.spec.seed for plan in grid.plans] == [1] * 10 + [2] * 10
    assert Counter(plan.spec.variant for plan in grid.plans) == {"lora": 8, "dora": 8, "vera": 4}
    assert [plan.spec.variant for plan in grid.plans[:2]] == ["lora", "dora"]


def test_runs_that_share_their_training_are_one_cell(tmp_path: Path, tiny_model: str) -> None:
    grid = read_grid(write(tmp_path, tiny_model))
    sizes = sorted(len(plans) for plans in grid.cells().values())
    assert len(grid.plans) == 8
    assert sizes == [1, 1, 1, 1, 2, 2]  # one adapter serves both languages at ratio 0


def test_an_arm_may_set_what_is_the_variant_s_own(tmp_path: Path, tiny_model: str) -> None:
    arms = [{"variant": "lora-plus"}, {"variant": "lora-plus", "options": {"rate_ratio": 4.0}}]
    ratios = {p.spec.variant_options["rate_ratio"] for p in read_grid(write(tmp_path, tiny_model, arms=arms)).plans}
    assert ratios == {16.0, 4.0}
    with pytest.raises(OptionError, match="options=ratio: allowed are rate_ratio"):
        read_grid(write(tmp_path, tiny_model, arms=[{"variant": "lora-plus", "options": {"ratio": 4.0}}]))


def test_equal_runs_of_two_arms_are_one(tmp_path: Path, tiny_model: str) -> None:
    arms = [{"variant": "lora"}, {"variant": "lora", "rank": 8}]
    assert len(read_grid(write(tmp_path, tiny_model, arms=arms)).plans) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": []}, "arms must be a list"),
        ({"arms": [{"variant": "lorra"}]}, "variant=lorra: allowed are .*did you mean 'lora'"),
        ({"arms": [{"varient": "lora"}]}, "has no option 'varient' of run .did you mean 'variant'"),
        ({"arms": [{"variant": "lora", "rank": 0}]}, "rank=0: must be a whole number"),
        ({"defaults": {**SMALL, "seed": []}}, "has no value for seed"),
        ({"defaults": {**SMALL, "precision": ["fp32", "bf16"]}}, "must have one precision"),
        ({"repeats": 3}, "must have the keys name and arms"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_allowed(
    tmp_path: Path, tiny_model: str, changes: dict[str, Any], message: str
) -> None:
    if "defaults" in changes:
        changes["defaults"]["model"] = tiny_model
    with pytest.raises(OptionError, match=rf"^file=.*{message}"):
        read_grid(write(tmp_path, tiny_model, **changes))


def test_a_boolean_of_a_file_is_one_of_yaml_or_a_text(tmp_path: Path, tiny_model: str) -> None:
    for value, read in ((False, False), (True, True), ("False", False), ("true", True), ("auto", None)):
        (plan,) = read_grid(
            write(
                tmp_path,
                tiny_model,
                defaults={"model": tiny_model, **SMALL, "language": "sw", "tl_ratio": 0, "latency": value},
                arms=[{"variant": "lora"}],
            )
        ).plans
        assert plan.options.latency is read
    with pytest.raises(OptionError, match="scoring must be a text, a number or a list"):
        read_grid(write(tmp_path, tiny_model, arms=[{"variant": "lora", "scoring": True}]))


def test_a_missing_file_names_the_nearest(tmp_path: Path, tiny_model: str) -> None:
    write(tmp_path, tiny_model)
    with pytest.raises(OptionError, match=r"did you mean .*grid\.yaml"):
        read_grid(str(tmp_path / "gird.yaml"))


@pytest.mark.parametrize("options", [["--workers", "0"], ["--engine", "slurm"], ["--dry_run", "maybe"]])
def test_bad_options_end_with_status_2(
    tmp_path: Path, tiny_model: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--file", write(tmp_path, tiny_model), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {options[0].strip('-')}={options[1]}: ")


def test_a_file_extends_another(tmp_path: Path, tiny_model: str) -> None:
    write(tmp_path, tiny_model)
    other = tmp_path / "other.yaml"
    content = {"extends": "grid.yaml", "about": "Mine.", "defaults": {"language": "hi", "seed": [1, 2]}}
    other.write_text(yaml.safe_dump(content))
    grid = read_grid(str(other))
    assert (grid.name, grid.about) == ("grid", "Mine.")
    assert {plan.spec.language for plan in grid.plans} == {"hi"}
    assert {plan.spec.variant for plan in grid.plans} == {"lora", "vera"}
    assert len(grid.plans) == 2 * 2 * 2
    other.write_text(yaml.safe_dump(content | {"name": "mine", "arms": [{"variant": "dora"}]}))
    assert read_grid(str(other)).name == "mine"
    assert {plan.spec.variant for plan in read_grid(str(other)).plans} == {"dora"}
    other.write_text(yaml.safe_dump(content | {"extends": "gird.yaml"}))
    with pytest.raises(OptionError, match=r"gird\.yaml: must be .*did you mean .*grid\.yaml"):
        read_grid(str(other))
    other.write_text(yaml.safe_dump({"extends": "other.yaml"}))
    with pytest.raises(OptionError, match="must not extend itself"):
        read_grid(str(other))


def test_a_dry_run_prints_the_plan_and_runs_nothing(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--file", write(store, tiny_model), "--dry_run", "true"]) == 0
    printed = capsys.readouterr().out
    assert "8 runs with 6 adapters: 8 missing" in printed
    assert "not known until a run has finished" in printed
    assert not runs()


def test_an_experiment_shares_what_is_the_same_run_and_skips_what_is_done(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(store, tiny_model)
    assert main(["--file", file]) == 0
    finished = {run.info.run_id: run for run in runs()}
    assert len(finished) == 8
    assert {run.info.status for run in finished.values()} == {"FINISHED"}
    assert len(runs("base")) == 3  # en, sw and ur, once each
    reusing = [run for run in finished.values() if "whichlora.adapter_of" in run.data.tags]
    assert len(reusing) == 2
    for run in reusing:
        trained = finished[run.data.tags["whichlora.adapter_of"]]
        assert run.data.tags["whichlora.training_fingerprint"] == trained.data.tags["whichlora.training_fingerprint"]
        assert run.data.params["language"] != trained.data.params["language"]
        for metric in ("test/en/f1", "validation/en/f1", "train/seconds", "adapter/trainable_parameters"):
            assert run.data.metrics[metric] == trained.data.metrics[metric]
        one, two = (
            pd.read_parquet(mlflow.artifacts.download_artifacts(run_id=r.info.run_id, artifact_path=p))
            for r, p in ((run, "predictions/en.parquet"), (trained, "predictions/en.parquet"))
        )
        pd.testing.assert_frame_equal(one, two)

    capsys.readouterr()
    assert main(["--file", file]) == 0
    assert "8 runs with 6 adapters: 8 done" in capsys.readouterr().out
    assert len(runs()) == 8


def test_a_failed_run_is_named_with_its_reason_and_tried_again_by_the_next_call(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichlora.training import trainer

    defaults = {"model": tiny_model, **SMALL, "tl_ratio": 0.5, "language": "sw"}
    file = write(store, tiny_model, defaults=defaults)

    def refuse(*arguments: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(trainer, "prove_trained", refuse)
        assert main(["--file", file]) == 1
    printed = capsys.readouterr().out
    assert "0 of 2 runs are done." in printed
    assert "RuntimeError: the disk is full" in printed
    assert {run.info.status for run in runs()} == {"FAILED"}
    assert main(["--file", file]) == 0
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert len(runs()) == 2


def test_runs_with_other_values_are_reported_and_another_precision_is_refused(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {**SMALL, "model": tiny_model, "tl_ratio": 0.5, "language": "sw"}
    assert main(["--file", write(store, tiny_model, defaults=few, arms=[{"variant": "lora"}])]) == 0
    assert "more finished" not in capsys.readouterr().out
    assert main(["--file", write(store, tiny_model, defaults={**few, "test_size": 3}), "--dry_run", "true"]) == 0
    assert "1 more finished run of the experiment grid with other values" in capsys.readouterr().out
    assert main(["--file", write(store, tiny_model, defaults={**few, "precision": "bf16"})]) == 2
    assert "precision=bf16: the experiment has runs in fp32" in capsys.readouterr().err


def test_an_experiment_of_word_pairs_prints_the_scores_of_each_run_and_its_progress(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whichlora.experiment.progress._LOG_SECONDS", 0.0)
    few = {"task": "align-words", "layers": "first:2", "train_size": 24, "validation_size": 12, "test_size": [12, 18]}
    few |= {"model": tiny_model, "learning_rate": 0.01, "retention": "atlas-nli", "retention_size": 9}
    assert main(["--file", write(store, tiny_model, defaults=few, arms=[{"variant": "lora"}])]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(re.match("1 of 2 runs done, about .* of work left$", line) for line in printed)
    done = [line for line in printed if line.startswith("done: ")]
    assert len(done) == 2
    assert all(": P@1 0." in line and "trained pairs, P@1 0." in line for line in done)
    assert all(re.search(r"F1 \d+\.\d atlas-nli, not trained, Swahili", line) for line in done)


def test_one_failing_run_does_not_stop_the_others_with_the_same_adapter(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichlora.data.tasks.atlas import AtlasNli

    defaults = {**SMALL, "model": tiny_model, "tl_ratio": 0}
    shallow_baselines = AtlasNli.shallow_baselines

    def fail_for_swahili(task: Any, train: Any, test: Any) -> Any:
        if test[0].language == "sw":
            raise RuntimeError("no floor")
        return shallow_baselines(task, train, test)

    monkeypatch.setattr(AtlasNli, "shallow_baselines", fail_for_swahili)
    assert main(["--file", write(store, tiny_model, defaults=defaults, arms=[{"variant": "lora"}])]) == 1
    assert {run.data.params["language"]: run.info.status for run in runs()} == {"sw": "FAILED", "ur": "FINISHED"}


def test_an_adapter_whose_files_were_deleted_is_trained_again(store: Path, tiny_model: str) -> None:
    few = {**SMALL, "model": tiny_model, "tl_ratio": 0, "language": "sw"}
    assert main(["--file", write(store, tiny_model, defaults=few, arms=[{"variant": "lora"}])]) == 0
    shutil.rmtree(Path(runs()[0].info.artifact_uri.removeprefix("file://")) / "adapter")
    few["language"] = ["sw", "ur"]
    assert main(["--file", write(store, tiny_model, defaults=few, arms=[{"variant": "lora"}])]) == 0
    assert [run.info.status for run in runs()] == ["FINISHED"] * 2
    assert not any("whichlora.adapter_of" in run.data.tags for run in runs())


def test_a_run_that_another_process_took_over_is_not_marked(store: Path) -> None:
    def lost() -> None:
        raise LostLeaseError("another has it")

    log = Tracker(connect(), "grid").open("run", "a", {"fingerprint": "f"})
    with pytest.raises(LostLeaseError), RunLog(log.client, log.run_id, lost).guarded():
        raise RuntimeError("of the slow one")
    run = MlflowClient().get_run(log.run_id)
    assert run.info.status == "RUNNING"
    assert "whichlora.error" not in run.data.tags


@pytest.mark.slow
def test_the_time_left_follows_from_the_finished_runs(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model)
    grid, tracker = read_grid(file), Tracker(connect(), "grid")
    assert main(["--file", write(store, tiny_model, arms=[{"variant": "lora"}])]) == 0
    half = survey_runs(grid, tracker).seconds_left(read_grid(write(store, tiny_model)))
    assert half
    assert half > 0
    assert main(["--file", write(store, tiny_model)]) == 0
    assert survey_runs(grid, tracker).seconds_left(grid) == 0


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (700, "12 min"), (11_100, "3 h 5 min")])
def test_durations_are_read_at_once(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def start(file: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "whichlora.experiment", "--file", file, *options]
    return subprocess.Popen(command, env={**os.environ, "WHICHLORA_CHECKPOINT_SECONDS": "0"}, start_new_session=True)


def results() -> dict[str, tuple[str, ...]]:
    """Return the predictions of all runs by fingerprint; each must be finished and exist once."""
    predictions: dict[str, tuple[str, ...]] = {}
    for run in runs():
        assert run.info.status == "FINISHED"
        assert run.data.tags["whichlora.fingerprint"] not in predictions
        frames = [
            pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/predictions/{role}.parquet"))
            for role in ("en", "tl")
        ]
        predictions[run.data.tags["whichlora.fingerprint"]] = tuple(pd.concat(frames)["predicted"])
    return predictions


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_runs_of_an_uninterrupted_pass(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model, defaults={"model": tiny_model, **SMALL, "train_size": 96, "batch_size": 4})
    rng = random.Random(0)
    seen: set[Path] = set()

    def checkpoints() -> set[Path]:
        return set((store / "whichlora-work").glob("run-*/checkpoint-*/trainable.safetensors"))

    for _ in range(4):  # each time in another run, at most two seconds after a new checkpoint
        process = start(file)
        while not checkpoints() - seen:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen |= checkpoints()
    assert start(file).wait(600) == 0
    interrupted = results()
    assert len(interrupted) == 8

    other = store / "uninterrupted"
    other.mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{other / 'mlflow.db'}")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{other / 'mlflow.db'}"  # put back by the fixture
    assert start(file).wait(600) == 0
    assert results() == interrupted


@pytest.mark.slow
def test_packed_runs_killed_in_the_middle_are_resumed(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model, defaults={"model": tiny_model, **SMALL, "train_size": 96, "batch_size": 4})
    process = start(file, "--pack", "3")
    while len(set((store / "whichlora-work").glob("run-*/checkpoint-*/trainable.safetensors"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(file, "--pack", "3").wait(600) == 0
    packed = results()
    assert len(packed) == 8
    assert len([run for run in runs() if "whichlora.resumed" in run.data.tags]) >= 3
    for run in runs():
        curve = MlflowClient().get_metric_history(run.info.run_id, "system/process_memory_usage_megabytes")
        assert [point.step for point in curve] == list(range(len(curve)))  # also of runs that were trained together
        assert len(curve) >= 2 or "whichlora.adapter_of" in run.data.tags

    other = store / "alone"
    other.mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{other / 'mlflow.db'}")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{other / 'mlflow.db'}"  # put back by the fixture
    assert start(file).wait(600) == 0
    alone = results()
    assert packed.keys() == alone.keys()
    pairs = [pair for fingerprint in alone for pair in zip(packed[fingerprint], alone[fingerprint], strict=True)]
    assert sum(a == b for a, b in pairs) >= 0.9 * len(pairs)


@pytest.mark.slow
def test_workers_and_another_process_share_the_work_and_repeat_nothing(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model)
    together, alone = start(file, "--workers", "2"), start(file)
    time.sleep(1)
    assert together.wait(600) == 0
    assert alone.wait(600) == 0
    assert len(results()) == 8
    trained = [run for run in runs() if "whichlora.adapter_of" not in run.data.tags]
    assert len(trained) == 6
    assert len(runs("base")) == 3
