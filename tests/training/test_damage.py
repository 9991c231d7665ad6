"""Work folders with damaged files: the run falls back to what is intact and ends as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from runs import PAIRS, plan_of, run_of
from safetensors.torch import load_file, save_file

from whichlora.errors import DamagedError
from whichlora.run import pipeline, reuse
from whichlora.run.summary import Result
from whichlora.testing.interruption import kill_after_step
from whichlora.testing.runs import predictions_of, tracking_in
from whichlora.training import callbacks, checkpoints
from whichlora.training.fit import _finished
from whichlora.training.sealed import files_in, read_checked

EPOCHS = {"epochs": "2"}


def flip(path: Path, at: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "deleted": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def killed(tiny_model: str, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a run that was interrupted in the second of its two epochs of five steps."""
    mark_complete = checkpoints.mark_complete

    def interrupt_after_seventh(folder: Path, metadata: dict[str, Any]) -> None:
        mark_complete(folder, metadata)
        if folder.name == "checkpoint-7":
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(empty_database, folder / "mlflow.db")
    with tracking_in(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(checkpoints, "mark_complete", interrupt_after_seventh)
        with pytest.raises(KeyboardInterrupt):
            run_of(plan_of(tiny_model, **EPOCHS))
    (work,) = [path for path in (folder / "whichlora-work").iterdir() if path.is_dir()]
    assert numbers(work) == [6, 7]
    assert (work / "best-5").is_dir()
    return work


@pytest.fixture(scope="module")
def whole(tiny_model: str, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The predictions of the same run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(empty_database, folder / "mlflow.db")
    with tracking_in(folder):
        return predictions(run_of(plan_of(tiny_model, **EPOCHS)))


def predictions(result: Result) -> dict[str, pd.DataFrame]:
    return {name: predictions_of(result.run_id, name) for name in ("en", "tl")}


def copied(work: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(work, target)
    return target


def numbers(work: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in work.glob("checkpoint-*"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damaged_file_is_noticed(
    killed: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    former, newest = numbers(killed)
    for file in files_in(killed):
        work = copied(killed, tmp_path / killed.name)
        name = file.relative_to(killed)
        DAMAGES[damage](work / name)
        found, warnings = checkpoints.recover(work), capsys.readouterr().err.splitlines()
        folder = name.parts[0]
        if folder == f"checkpoint-{newest}":
            assert found == work / f"checkpoint-{former}"
            if (damage, name.name) == ("deleted", "complete.json"):  # as if it had been killed before
                assert not warnings
            else:
                assert warnings == [
                    f"warning: {work / name} is missing or damaged: training resumes from checkpoint-{former}."
                ]
        elif folder.startswith("best-"):
            assert found is None
            (warning,) = warnings
            assert f"{work / name} is missing or damaged" in warning
            assert warning.endswith(": training starts over.")
        else:  # the newest checkpoint does not need it
            assert found == work / f"checkpoint-{newest}"
            assert not warnings
        if found is not None:
            read_checked(work / "best.json")


def test_a_checkpoint_that_is_not_finite_is_not_resumed_from(
    killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former, newest = numbers(killed)
    work = copied(killed, tmp_path / "work")
    weights = work / f"checkpoint-{newest}" / "trainable.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    checkpoints.mark_complete(weights.parent, {"seconds": 1.0, "outstanding": False})
    assert checkpoints.recover(work) == work / f"checkpoint-{former}"
    assert f"is not finite in checkpoint-{newest}" in capsys.readouterr().err


def damage_newest(work: Path) -> None:
    flip(work / f"checkpoint-{numbers(work)[-1]}" / "optimizer.pt")


def damage_all_checkpoints(work: Path) -> None:
    for number in numbers(work):
        flip(work / f"checkpoint-{number}" / "trainable.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_newest, "training resumes from checkpoint-"),
        pytest.param(damage_all_checkpoints, "training starts over", marks=pytest.mark.slow),
        pytest.param(
            lambda work: flip(work / "best-5" / "trainable.safetensors"), "starts over", marks=pytest.mark.slow
        ),
        pytest.param(lambda work: (work / "best.json").unlink(), "Resuming from", marks=pytest.mark.slow),
        pytest.param(lambda work: flip(work / "best.json"), "Resuming from", marks=pytest.mark.slow),
    ],
)
def test_the_result_is_that_of_an_uninterrupted_run(
    store: Path,
    tiny_model: str,
    killed: Path,
    whole: dict[str, pd.DataFrame],
    damage: Callable[[Path], Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(copied(killed, store / "whichlora-work" / killed.name))
    found = predictions(run_of(plan_of(tiny_model, **EPOCHS)))
    assert says in "".join(capsys.readouterr())
    for name, frame in whole.items():
        pd.testing.assert_frame_equal(found[name], frame)


@pytest.mark.slow
def test_a_damaged_initial_adapter_is_made_again(store: Path, tiny_model: str, tmp_path: Path) -> None:
    options = {"variant": "pissa", **EPOCHS}
    with tracking_in(tmp_path / "killed"):
        kill_after_step(tiny_model, 7, options)
        (work,) = [path for path in (tmp_path / "killed" / "whichlora-work").iterdir() if path.is_dir()]
        for file in files_in(work / "initial"):
            flip(file)
        found = predictions(run_of(plan_of(tiny_model, **options)))
    with tracking_in(tmp_path / "whole"):
        for name, frame in predictions(run_of(plan_of(tiny_model, **options))).items():
            pd.testing.assert_frame_equal(found[name], frame)


def test_a_damaged_trained_adapter_is_trained_to_its_end_again(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = pipeline._score_model

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_score_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_of(plan_of(tiny_model))
    (work,) = [path for path in (store / "whichlora-work").iterdir() if path.is_dir()]
    kept = copied(work, store / "kept")
    trained = [kept / "trained.json", *files_in(kept / "adapter")]
    assert len(trained) > 2
    assert _finished(kept) is not None
    capsys.readouterr()
    for file in trained:
        for name, damage in DAMAGES.items():
            copy = copied(kept, store / "copy")
            damage(copy / file.relative_to(kept))
            assert _finished(copy) is None
            assert not (copy / "adapter").exists()
            deleted_record = name == "deleted" and file.name == "trained.json"
            assert len(capsys.readouterr().err.splitlines()) == (0 if deleted_record else 1)
    flip(work / "adapter" / "adapter_model.safetensors")
    monkeypatch.setattr(pipeline, "_score_model", score)
    found = predictions(run_of(plan_of(tiny_model)))
    assert "adapter_model.safetensors is missing or damaged: the end" in capsys.readouterr().err
    for name, frame in predictions(run_of(plan_of(tiny_model), experiment="whole")).items():
        pd.testing.assert_frame_equal(found[name], frame)


def test_no_flipped_bit_changes_predictions(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item": [f"i{k}" for k in range(12)], "predicted": ["b", "b", None] * 4, "p_a": [0.3] * 12})
    path = tmp_path / "predictions" / "en.parquet"
    reuse.write_predictions(frame, path)
    content = path.read_bytes()
    tracker: Any = SimpleNamespace(client=SimpleNamespace(download_artifacts=lambda *arguments: str(path)))
    damaged = 0
    for i in range(0, len(content), 5):
        path.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        try:
            found = reuse.download_predictions(tracker, "run", "en", tmp_path)
        except DamagedError:
            damaged += 1
        else:
            pd.testing.assert_frame_equal(found, frame, obj=f"byte {i}")
    assert damaged > 100


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_of_the_base_model_are_made_again(
    store: Path, tiny_model: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_of(plan_of(tiny_model, **PAIRS))
    client = mlflow.MlflowClient()
    client.delete_run(first.run_id)
    bases = [f for f in store.glob("mlartifacts/tests/*/artifacts/predictions/*.parquet") if first.run_id not in str(f)]
    assert bases
    for file in bases:
        flip(file, at=100) if damage == "flipped" else DAMAGES[damage](file)  # later bytes have no influence
    again = run_of(plan_of(tiny_model, **PAIRS))
    assert capsys.readouterr().err.count(": the base model is scored again.") == len(bases)
    assert {k: v for k, v in again.metrics.items() if k.startswith(("test/", "pairs/", "gain/"))} == {
        k: v for k, v in first.metrics.items() if k.startswith(("test/", "pairs/", "gain/"))
    }
    for file in bases:
        pd.read_parquet(file, page_checksum_verification=True)
