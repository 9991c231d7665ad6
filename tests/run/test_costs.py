"""What a run's adapter costs: bytes of its files, price of its training, and inference with it, merged and not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow.artifacts import download_artifacts
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM

from whichlora.config.options import parse_options
from whichlora.evaluation import latency
from whichlora.evaluation.latency import BATCH_SIZE, NEW_TOKENS, PROMPT_TOKENS, REPEATS, inference_costs
from whichlora.models.loading import load_model, locate
from whichlora.parallel import lockstep
from whichlora.run.costs import InferenceCosts
from whichlora.training import base_cache

TIMES = ("first_token_ms", "token_ms", "tokens_per_second")


def test_the_files_the_price_and_both_forms_of_inference_are_metrics_of_a_run(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model, latency="true", device_price="3.6")
    run = mlflow.get_run(run_of(plan).run_id)
    metrics, params = run.data.metrics, run.data.params
    folder = Path(download_artifacts(run_id=run.info.run_id, artifact_path="adapter"))
    assert metrics["adapter/file_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert metrics["train/price"] == pytest.approx(metrics["train/seconds"] / 1000)
    assert (params["device_price"], params["inference_prompt_tokens"]) == ("3.6", str(PROMPT_TOKENS))
    for form in ("inference", "inference/merged"):
        assert all(metrics[f"{form}/{name}"] > 0 for name in TIMES)
        assert metrics[f"{form}/other_load"] >= 0
    base = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_model).parameters())
    merged, unmerged = (metrics[f"{form}/weights_mb"] for form in ("inference/merged", "inference"))
    assert unmerged - merged == pytest.approx(4 * metrics["adapter/trainable_parameters"] / 1e6, rel=1e-6)
    assert merged == pytest.approx(4 * base / 1e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"variant": "dora"}, {"precision": "bf16"}, {"variant": "full"}])
def test_measuring_changes_nothing_else(store: Path, tiny_model: str, options: dict[str, str]) -> None:
    """Not the scores, and not the weights of the base, which the next run of the process uses."""
    plan = plan_of(tiny_model, **options)
    one, other = (run_of(plan_of(tiny_model, latency=on, **options), on) for on in ("true", "false"))
    inference = {name for name in one.metrics if name.startswith("inference/")}
    assert any(name.startswith("inference/merged/") for name in inference) == (options.get("variant") != "full")
    assert not any(name.startswith("inference/") for name in other.metrics)
    results = [{k: v for k, v in run.metrics.items() if k.startswith(("test/", "validation/"))} for run in (one, other)]
    assert results[0] == results[1]
    fresh = load_model(plan.source, precision=plan.spec.precision, quantization="none")
    kept = base_cache.checkout(plan)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), kept.parameters(), strict=True))


def test_the_time_is_that_of_the_forward_pass(tiny_model: str) -> None:
    model = load_model(locate(tiny_model), precision="fp32", quantization="none")
    calls: list[tuple[int, ...]] = []

    def wait(module: Any, inputs: Any, given: dict[str, Any]) -> None:
        calls.append(tuple(given["input_ids"].shape))
        time.sleep(0.2 if given["input_ids"].shape[1] > 1 else 0.05)

    model.register_forward_pre_hook(wait, with_kwargs=True)
    costs = inference_costs(model, context=2048)
    assert 200 < costs["first_token_ms"] < 600
    assert 50 < costs["token_ms"] < 200
    assert BATCH_SIZE / 0.2 < costs["tokens_per_second"] < BATCH_SIZE / 0.05
    prompts = [shape for shape in calls if shape[1] > 1]
    assert set(prompts) == {(1, PROMPT_TOKENS), (BATCH_SIZE, PROMPT_TOKENS)}
    assert calls[-NEW_TOKENS:] == [(BATCH_SIZE, PROMPT_TOKENS), *[(BATCH_SIZE, 1)] * (NEW_TOKENS - 1)]
    assert 2 + 1 <= len(prompts) < 2 + REPEATS, "a slow model is measured less often"


def test_a_short_context_has_shorter_prompts(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(locate(tiny_model), precision="fp32", quantization="none")
    lengths: list[int] = []
    monkeypatch.setattr(
        latency, "_continue", lambda model, prompt, tokens, cached: lengths.append(prompt.shape[1]) or [0.01] * tokens
    )
    inference_costs(model, context=10)
    assert set(lengths) == {10 - NEW_TOKENS}


def test_packed_runs_are_measured_only_if_told_so_and_the_option_identifies_nothing(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(locate(tiny_model), precision="fp32", quantization="none")
    plans = {on: plan_of(tiny_model, latency=on) for on in ("auto", "true", "false")}
    plans["price"] = plan_of(tiny_model, device_price="2")
    assert len({plan.spec.fingerprint for plan in plans.values()}) == 1
    measured = {}

    def measure() -> None:
        for on in ("auto", "true", "false"):
            costs = InferenceCosts(plans[on])
            costs.measure(model, merged=False)
            measured[on, lockstep.active()] = bool(costs.metrics)

    measure()
    lockstep.run(2, measure)
    assert {key for key, value in measured.items() if value} == {("auto", False), ("true", False), ("true", True)}


def test_what_cannot_be_measured_loses_no_run(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    costs = InferenceCosts(plan_of(tiny_model, latency="true"))
    model = load_model(locate(tiny_model), precision="fp32", quantization="none")
    model.generate = lambda **options: 1 / 0
    costs.measure(model, merged=False)
    assert costs.metrics == {}
    assert "warning: inference was not measured (ZeroDivisionError: division by zero)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": "yes"}, "latency=yes: allowed are true, false"),
        ({"device_price": "-1"}, "device_price=-1: must be a number at least 0"),
        ({"device_price": "2 EUR"}, "device_price=2 EUR: must be a number"),
    ],
)
def test_other_values_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(options)


def test_trials_have_the_size_of_their_files_and_no_inference(store: Path, tiny_model: str) -> None:
    from whichlora.run.pipeline import trial
    from whichlora.tracking.client import connect
    from whichlora.tracking.runs import Tracker

    result = trial(plan_of(tiny_model, latency="true"), Tracker(connect(), "trials"))
    assert result.metrics["adapter/file_bytes"] > 0
    assert not any(name.startswith("inference/") for name in result.metrics)
