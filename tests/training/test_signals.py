"""A training that a signal ends after a step does later what that step still owed: validation and reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from runs import plan_of, run_of

from whichlora import termination
from whichlora.config.plan import Plan
from whichlora.run.pipeline import trial
from whichlora.testing.runs import predictions_of
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.training import callbacks
from whichlora.training.fit import PruningReports


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that lets a signal arrive during a step of the next training, and only then."""
    count, at = 0, 0
    agree = callbacks.CheckpointTimer.agree

    def counted(self: Any, items: int) -> int:
        nonlocal count
        count += 1
        return agree(self, items)

    def during(step: int) -> None:
        nonlocal count, at
        count, at = 0, step

    monkeypatch.setattr(callbacks.CheckpointTimer, "agree", counted)
    monkeypatch.setattr(termination, "requested", lambda: count == at > 0)
    return during


def interrupted(plan: Plan, signal_at: Callable[[int], None], step: int, start: Callable[[Plan], Any]) -> None:
    signal_at(step)
    with pytest.raises(termination.Terminated):
        start(plan)
    signal_at(0)


@pytest.mark.parametrize("step", [5, pytest.param(3, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)])
def test_the_epoch_is_validated_after_the_resume(
    store: Path, tiny_model: str, signal_at: Callable[[int], None], step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 5 is the last one of the first epoch; after step 10, the last one, there is nothing to resume."""
    plan = plan_of(tiny_model, epochs=2)
    interrupted(plan, signal_at, step, run_of)
    capsys.readouterr()
    resumed = run_of(plan)
    assert (f"Resuming from checkpoint-{step}" in capsys.readouterr().out) == (step < 10)
    whole = run_of(plan, experiment="whole")
    assert resumed.metrics["train/best_step"] == whole.metrics["train/best_step"]
    for name in ("en", "tl"):
        pd.testing.assert_frame_equal(predictions_of(resumed.run_id, name), predictions_of(whole.run_id, name))


def test_the_pruner_gets_each_report_once(store: Path, tiny_model: str, signal_at: Callable[[int], None]) -> None:
    plan = plan_of(tiny_model, epochs=2)
    reported: dict[str, list[tuple[int, float]]] = {"resumed": [], "whole": []}

    def start(plan: Plan, name: str = "resumed") -> Any:
        reports = PruningReports(roles=["en"], times=4, report=lambda *report: reported[name].append(report))
        return trial(plan, Tracker(connect(), name), reports=reports)

    interrupted(plan, signal_at, 5, start)  # reports are due after steps 2, 5, 8 and 10
    assert [number for number, _ in reported["resumed"]] == [1]
    start(plan)
    start(plan, "whole")
    assert reported["resumed"] == reported["whole"]
    assert [number for number, _ in reported["whole"]] == [1, 2, 3, 4]
