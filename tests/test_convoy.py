"""Runs that take their training steps together end as they would alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from runs import plan_of

from whichlora import convoy, tracking
from whichlora.resolve import Plan
from whichlora.run import Result, run


def plans(folder: str) -> list[Plan]:
    """Return runs of unlike variants, ranks, sizes and lengths."""
    return [
        plan_of(folder, variant="lora", seed="1"),
        plan_of(folder, variant="dora", seed="2", batch_size="4", target_modules="q_proj,v_proj"),
        plan_of(folder, variant="adalora", seed="3", rank="4"),
        plan_of(folder, variant="vera", seed="1", epochs="2", tl_ratio="0"),
    ]


def done(chosen: list[Plan], experiment: str, *, pack: int) -> dict[str, Result]:
    tracker = tracking.Tracker(tracking.connect(), experiment)
    left = list(chosen)
    found: dict[str, Result] = {}

    def work() -> None:
        while left:
            plan = left.pop(0)
            found[plan.spec.fingerprint] = run(plan, tracker)

    convoy.run(pack, work)
    return found


def losses(result: Result) -> list[float]:
    return [point.value for point in tracking.connect().get_metric_history(result.run_id, "train/loss")]


def answers(result: Result) -> pd.DataFrame:
    folder = tracking.connect().download_artifacts(result.run_id, "predictions")
    return pd.concat([pd.read_parquet(path) for path in sorted(Path(folder).iterdir())])


@pytest.mark.parametrize("pack", [2, 4])
def test_packed_runs_come_to_what_they_come_to_alone(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, pack: int
) -> None:
    chosen = plans(tiny_model)
    alone = done(chosen, "alone", pack=1)
    sizes: list[int] = []
    taken = convoy.leave_gradients
    monkeypatch.setattr(convoy, "leave_gradients", lambda batches: (sizes.append(len(batches)), taken(batches))[1])
    packed = done(chosen, "packed", pack=pack)
    assert max(sizes) == pack
    assert packed.keys() == alone.keys()
    for fingerprint, own in alone.items():
        other = packed[fingerprint]
        assert losses(other) == pytest.approx(losses(own), abs=1e-3)
        same = answers(other)["predicted"].to_numpy() == answers(own)["predicted"].to_numpy()
        assert same.mean() >= 0.9
        assert other.metrics["train/packed"] == pack
        assert other.metrics["adapter/trainable_parameters"] == own.metrics["adapter/trainable_parameters"]
        assert "train/packed" not in own.metrics


def test_where_memory_does_not_suffice_fewer_train_at_once(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = plans(tiny_model)[:2]
    alone = done(chosen, "alone", pack=1)

    def none_left(batches: Any) -> Any:
        batches[0].model.zero_grad()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(convoy, "leave_gradients", none_left)
    packed = done(chosen, "packed", pack=2)
    assert "Out of memory with 2 runs at once; going on with 1." in capsys.readouterr().err
    for fingerprint, own in alone.items():
        assert losses(packed[fingerprint]) == losses(own)


def test_one_that_fails_leaves_the_others_at_work(store: Path, tiny_model: str) -> None:
    chosen = plans(tiny_model)[:2]
    tracker = tracking.Tracker(tracking.connect(), "packed")
    left: list[Callable[[], Any]] = [lambda: run(chosen[0], tracker), lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        convoy.run(2, lambda: left.pop(0)())
    assert tracker.find("run", status="FINISHED", fingerprint=chosen[0].spec.fingerprint)


def test_one_thread_works_at_a_time_and_its_clock_counts_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, working, spent = [0.0], threading.Lock(), []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def common(batches: Any) -> list[torch.Tensor]:
        now[0] += 8.0
        return [torch.zeros(())] * len(batches)

    def work() -> None:
        began = convoy.clock()
        for _ in range(3):
            assert working.acquire(blocking=False)
            now[0] += 1.0
            working.release()
            assert convoy.step(object()) is not None  # type: ignore[arg-type]
        spent.append(convoy.clock() - began)

    monkeypatch.setattr(convoy, "leave_gradients", common)
    convoy.run(2, work)
    assert spent == [3 * (1 + 8 / 2)] * 2
    assert now[0] == sum(spent)
    assert not convoy.inside()
