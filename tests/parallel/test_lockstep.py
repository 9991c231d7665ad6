"""Runs in lockstep end as they would alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from runs import plan_of

from whichlora.config.plan import Plan
from whichlora.parallel import lockstep
from whichlora.run import pipeline
from whichlora.run.pipeline import Result, run
from whichlora.tracking.client import connect, work_folder
from whichlora.tracking.runs import Tracker
from whichlora.training import multi_adapter


def plans(folder: str) -> list[Plan]:
    """Return plans with different variants, ranks, batch sizes and lengths."""
    return [
        plan_of(folder, variant="lora", seed="1"),
        plan_of(folder, variant="dora", seed="2", batch_size="4", target_modules="q_proj,v_proj"),
        plan_of(folder, variant="adalora", seed="3", rank="4"),
        plan_of(folder, variant="vera", seed="1", epochs="2", tl_ratio="0"),
    ]


def done(chosen: list[Plan], experiment: str, *, pack: int) -> dict[str, Result]:
    tracker = Tracker(connect(), experiment)
    left = list(chosen)
    found: dict[str, Result] = {}

    def work() -> None:
        while left:
            plan = left.pop(0)
            found[plan.spec.fingerprint] = run(plan, tracker)

    lockstep.run(pack, work)
    return found


def losses(result: Result) -> list[float]:
    return [point.value for point in connect().get_metric_history(result.run_id, "train/loss")]


def answers(result: Result) -> pd.DataFrame:
    folder = connect().download_artifacts(result.run_id, "predictions")
    return pd.concat([pd.read_parquet(path) for path in sorted(Path(folder).iterdir())])


@pytest.mark.parametrize("pack", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_packed_runs_have_the_results_of_single_runs(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, pack: int
) -> None:
    chosen = plans(tiny_model)
    alone = done(chosen, "alone", pack=1)
    sizes: list[int] = []
    backward = multi_adapter.backward_together
    monkeypatch.setattr(
        multi_adapter, "backward_together", lambda batches: (sizes.append(len(batches)), backward(batches))[1]
    )
    packed = done(chosen, "packed", pack=pack)
    assert max(sizes) == pack
    assert packed.keys() == alone.keys()
    for fingerprint, own in alone.items():
        other = packed[fingerprint]
        assert losses(other) == pytest.approx(losses(own), abs=1e-3)
        same = answers(other)["predicted"].to_numpy() == answers(own)["predicted"].to_numpy()
        assert same.mean() >= 0.9
        assert other.metrics["adapter/trainable_parameters"] == own.metrics["adapter/trainable_parameters"]
        assert "train/packed" not in own.metrics
    counted = [result.metrics.get("train/packed", 1) for result in packed.values()]
    assert max(counted) == pack
    assert sum(runs > 1 for runs in counted) >= 3  # the last run may have had no partner left


def test_fewer_runs_train_at_once_when_memory_runs_out(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = plans(tiny_model)[:2]
    alone = done(chosen, "alone", pack=1)

    def none_left(batches: Any) -> Any:
        batches[0].model.zero_grad()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(multi_adapter, "backward_together", none_left)
    packed = done(chosen, "packed", pack=2)
    assert "Out of memory with 2 runs at once; continuing with 1." in capsys.readouterr().err
    for fingerprint, own in alone.items():
        assert losses(packed[fingerprint]) == losses(own)


@pytest.mark.slow
def test_after_a_failed_pass_each_run_takes_the_step_alone(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = plans(tiny_model)[:3]
    alone = done(chosen, "alone", pack=1)
    backward, faults = multi_adapter.backward_together, iter([True])

    def once(batches: Any) -> Any:
        losses = backward(batches)
        if next(faults, False):
            raise RuntimeError("a fault")
        return losses

    monkeypatch.setattr(multi_adapter, "backward_together", once)
    packed = done(chosen, "packed", pack=3)
    assert "A pass of 3 runs failed (RuntimeError: a fault)." in capsys.readouterr().err
    for fingerprint, own in alone.items():  # the step was repeated without gradients of the first attempt
        assert losses(packed[fingerprint]) == pytest.approx(losses(own), abs=1e-3)


def test_a_failure_in_scoring_leaves_the_base_unchanged(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plans(tiny_model)[:3]
    alone = done(chosen[1:], "alone", pack=1)
    score_model = pipeline._score_model

    def fail(plan: Plan, *arguments: Any) -> Any:
        if plan is chosen[0]:
            raise RuntimeError("a fault")
        return score_model(plan, *arguments)

    monkeypatch.setattr(pipeline, "_score_model", fail)
    tracker = Tracker(connect(), "packed")
    left = list(chosen)
    found: dict[str, Result] = {}

    def work() -> None:
        while left:
            plan = left.pop(0)
            try:
                found[plan.spec.fingerprint] = run(plan, tracker)
            except RuntimeError:
                assert plan is chosen[0]

    lockstep.run(2, work)
    assert found.keys() == alone.keys()
    for fingerprint, own in alone.items():
        assert losses(found[fingerprint]) == pytest.approx(losses(own), abs=1e-3)
        assert found[fingerprint].metrics["base/en/f1"] == own.metrics["base/en/f1"]


def test_threads_that_want_the_same_run_do_not_deadlock(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model, variant="lora", seed="1")
    tracker = Tracker(connect(), "packed")
    found: list[Result] = []
    lockstep.run(3, lambda: found.append(run(plan, tracker)))
    assert len({result.run_id for result in found}) == 1
    assert len(found) == 3


def test_other_runs_continue_while_one_waits_for_a_lock_of_another_process(store: Path, tiny_model: str) -> None:
    held, free = plans(tiny_model)[:2]
    tracker = Tracker(connect(), "packed")
    identity = held.spec.training_fingerprint
    lock = FileLock(work_folder() / f"run-{identity[:16]}.lock", thread_local=False)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    ended: list[Plan] = []
    left = [held, free]

    def work() -> None:
        plan = left.pop(0)
        run(plan, tracker)
        ended.append(plan)
        if plan is free:
            lock.release()

    lockstep.run(2, work)
    assert ended == [free, held]


INTERRUPTED = """
import os, signal, time, torch
from whichlora.parallel import lockstep
from whichlora.training import multi_adapter
multi_adapter.backward_together = lambda batches: [torch.zeros(())] * len(batches)
multi_adapter._all_finite = lambda losses, batches: True
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore SIGINT, as do children
sent, cleaned = [], []
def work():
    try:
        while True:
            lockstep.step(object(), multi_adapter.try_together)
            if not sent:
                sent.append(1)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
    except KeyboardInterrupt:
        cleaned.append(1)
        raise
try:
    lockstep.run(3, work)
except KeyboardInterrupt:
    print(cleaned)
"""


@pytest.mark.slow
def test_an_interrupt_reaches_every_run() -> None:
    """Run in a separate process, because signals are delivered to the main thread."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[1, 1, 1]\n"


def test_an_interrupt_before_all_threads_have_started_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun, worked = threading.Thread.start, [], []

    def interrupted(thread: threading.Thread) -> None:
        if begun:
            raise KeyboardInterrupt
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lockstep.run(3, lambda: worked.append(1))
    assert not worked


def test_a_failing_run_does_not_stop_the_others(store: Path, tiny_model: str) -> None:
    chosen = plans(tiny_model)[:2]
    tracker = Tracker(connect(), "packed")
    left: list[Callable[[], Any]] = [lambda: run(chosen[0], tracker), lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        lockstep.run(2, lambda: left.pop(0)())
    assert tracker.find("run", status="FINISHED", fingerprint=chosen[0].spec.fingerprint)


def test_one_thread_works_at_a_time_and_its_clock_counts_only_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, working, spent = [0.0], threading.Lock(), []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def common(batches: Any) -> list[torch.Tensor]:
        now[0] += 8.0
        return [torch.zeros(())] * len(batches)

    def work() -> None:
        began = lockstep.busy_seconds()
        for _ in range(3):
            assert working.acquire(blocking=False)
            now[0] += 1.0
            working.release()
            assert lockstep.step(object(), multi_adapter.try_together) is not None  # type: ignore[arg-type]
        spent.append(lockstep.busy_seconds() - began)

    monkeypatch.setattr(multi_adapter, "backward_together", common)
    monkeypatch.setattr(multi_adapter, "_all_finite", lambda losses, batches: True)
    lockstep.run(2, work)
    assert spent == [3 * (1 + 8 / 2)] * 2
    assert now[0] == sum(spent)
    assert not lockstep.active()
