"""Order of items, resuming after SIGKILL, and selection of the checkpoint."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from runs import plan_of, run_of

from whichlora.data.batching import BucketBatches
from whichlora.testing.runs import predictions_of
from whichlora.testing.variant_runs import check_resuming
from whichlora.training import checkpoints
from whichlora.variants import CATALOGUE, WIDER

TRAINED = [name for name, variant in CATALOGUE.items() if variant.trains]


def test_batches_hold_each_position_once_and_positions_of_similar_length() -> None:
    lengths = [(7 * i) % 101 for i in range(205)]
    batches = list(BucketBatches(lengths, 8, seed=1))
    assert sorted(chain(*batches)) == list(range(205))
    assert [len(b) for b in batches] == [8] * 25 + [5]
    assert len(BucketBatches(lengths, 8, seed=1)) == len(batches)
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches[:25]]
    assert sum(spread) / len(spread) < 20  # at random it would be about 80


def test_batches_are_seeded_and_differ_by_epoch() -> None:
    lengths = list(range(64))
    first, again, other = (list(BucketBatches(lengths, 8, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert list(BucketBatches(lengths, 8, 1, epoch=lambda: 1)) != first


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_items_of_each_step(count: int) -> None:
    lengths = [(7 * i) % 101 for i in range(41)]  # the last batch has one item: some processes get none of it
    whole = list(BucketBatches(lengths, 8, seed=1))
    shares = [list(BucketBatches(lengths, 8, seed=1, share=(index, count))) for index in range(count)]
    assert [sorted(chain(*parts)) for parts in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]
    assert {len(batch) for share in shares for batch in share[:-1]} == {8 // count}


# 40 items in steps of eight: five steps per epoch. Step 3 is within the first epoch, 5 its end, 7 in the second. The
# wider catalogue is killed once only: its variants differ in what is attached, not in how it is saved.
FAST = [("lora", 3)]
STEPS = {variant: (7,) if CATALOGUE[variant] in WIDER else (3, 5, 7) for variant in TRAINED}
SLOW = [(variant, step) for variant, steps in STEPS.items() for step in steps if (variant, step) not in FAST]


@pytest.mark.parametrize(("variant", "step"), [*FAST, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]])
def test_a_killed_run_resumes_to_the_result_of_an_uninterrupted_one(
    store: Path, tiny_model: str, variant: str, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = check_resuming(variant, tiny_model, store, step=step)
    assert f"| {finished}/10 " in capsys.readouterr().err  # the bar begins where the run does


def test_the_same_spec_gives_identical_predictions_and_another_seed_others(store: Path, tiny_model: str) -> None:
    first = run_of(plan_of(tiny_model), experiment="first")
    second = run_of(plan_of(tiny_model), experiment="second")
    other = run_of(plan_of(tiny_model, seed=43), experiment="first")
    assert first.run_id != second.run_id
    pd.testing.assert_frame_equal(predictions_of(first.run_id, "tl"), predictions_of(second.run_id, "tl"))
    assert not predictions_of(first.run_id, "tl").equals(predictions_of(other.run_id, "tl"))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adalora_trains_for_a_few_steps(store: Path, tiny_model: str, steps: int) -> None:
    """Its final ranks are then chosen after the first step."""
    result = run_of(plan_of(tiny_model, variant="adalora", train_size=str(8 * steps), batch_size="8"))
    assert result.metrics["train/best_step"] == steps


def test_the_bar_of_training_has_the_name_of_its_run(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tiny_model)
    run_of(plan)
    assert f"{plan.name}: 100%" in capsys.readouterr().err


def test_accumulated_micro_batches_give_the_adapter_of_whole_batches(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_of(plan_of(tiny_model), experiment="whole")
    monkeypatch.setattr("whichlora.training.trainer.MICRO_BATCH", 2)
    parts = run_of(plan_of(tiny_model), experiment="parts")
    columns = [c for c in predictions_of(whole.run_id, "en") if c.startswith("p_")]
    pd.testing.assert_frame_equal(
        predictions_of(whole.run_id, "en")[columns], predictions_of(parts.run_id, "en")[columns], atol=1e-4
    )


def test_an_incomplete_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    checkpoints.mark_complete(tmp_path / "checkpoint-3", {"seconds": 1.5})
    (tmp_path / "checkpoint-10").mkdir()  # killed while it was being written
    assert checkpoints.last_complete(tmp_path) == (tmp_path / "checkpoint-3", {"seconds": 1.5})


def test_the_work_folder_is_set_by_the_environment_variable(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.tracking.client import work_folder

    assert work_folder() == store / "whichlora-work"
    monkeypatch.setenv("WHICHLORA_WORK", str(store / "elsewhere"))
    assert work_folder() == store / "elsewhere"
