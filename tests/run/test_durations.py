"""Estimates of how long runs take are those of finished runs of the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from whichlora.config.plan import Plan
from whichlora.run.durations import Durations, estimate_text, known_durations
from whichlora.testing.runs import small_plan
from whichlora.tracking.runs import place


def logged(plan: Plan, *, seconds: float, training: float, tags: dict[str, str] | None = None, **changes: str) -> None:
    """Log a finished run of a plan with some params changed."""
    client = MlflowClient()
    run_id = client.create_run("0", start_time=1000).info.run_id
    params = {name: str(value) for name, value in plan.spec.to_dict().items() if name != "layers"} | changes
    known = {"whichlora.kind": "run", "whichlora.place": place()} | (tags or {})
    client.log_batch(
        run_id,
        metrics=[Metric("train/seconds", training, 0, 0)],
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(key, value) for key, value in known.items()],
    )
    client.set_terminated(run_id, "FINISHED", end_time=1000 + int(1000 * seconds))


def test_an_estimate_is_the_rate_of_the_variant_and_the_rest_of_a_run(store: Path, tiny_model: str) -> None:
    plan, twice = small_plan(tiny_model), small_plan(tiny_model, train_size=80)
    assert estimate_text(known_durations(MlflowClient(), plan), plan) == ""
    logged(plan, seconds=100, training=60)
    logged(small_plan(tiny_model, variant="vera"), seconds=1000, training=600)
    found = known_durations(MlflowClient(), twice)
    assert found.count == 2
    assert found.training(twice) == pytest.approx(120)
    assert found.total([twice, twice]) == pytest.approx(120 + 2 * (40 + 400) / 2)
    assert found.total([twice], [twice.spec.training_fingerprint]) == pytest.approx((40 + 400) / 2)
    assert estimate_text(found, twice).startswith(
        "This takes about 6 min, estimated from 2 finished runs with this model"
    )


def test_only_runs_that_are_comparable_count(store: Path, tiny_model: str) -> None:
    plan = small_plan(tiny_model)
    logged(plan, seconds=10, training=5, tags={"whichlora.place": "another machine"})
    logged(plan, seconds=10, training=5, model_digest="another model")
    logged(plan, seconds=10, training=5, task="another task")
    logged(plan, seconds=10, training=5, tags={"whichlora.kind": "trial"})
    assert known_durations(MlflowClient(), plan) == Durations(rates={}, others=[], count=0)
    logged(plan, seconds=100, training=60, test_size="9999")
    found = known_durations(MlflowClient(), plan)
    assert (found.training(plan), list(found.others)) == (pytest.approx(60), [])
    items = sum(len(test.items) for test in plan.tests.values())
    assert estimate_text(found, plan).endswith(f"on this machine; then {items} test items are scored.")


def test_pauses_and_adapters_of_other_runs_are_no_durations(store: Path, tiny_model: str) -> None:
    plan = small_plan(tiny_model)
    logged(plan, seconds=9999, training=60, tags={"whichlora.resumed": "true"})
    logged(plan, seconds=40, training=60, tags={"whichlora.adapter_of": "f" * 32})
    found = known_durations(MlflowClient(), plan)
    assert list(found.rates["lora"]) == [pytest.approx(60 / 40)]
    assert list(found.others) == [pytest.approx(40)]
