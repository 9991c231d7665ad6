"""Fused low-rank layers give PEFT's results and gradients, and training uses them where possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from methods import ADAPTERS, cases
from peft.tuners.adalora import SVDLinear
from peft.tuners.lora import Linear
from runs import moved, plan_of

from whichlora.data.encoding import Encoder
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels.low_rank import fusable_layers, fused
from whichlora.testing import save_tiny_model
from whichlora.training.trainer import train

PLAIN = {
    "lora",
    "lora-plus",
    "rslora",
    "pissa",
    "olora",
    "eva",
    "molf-efficient",
    "hybrid-lora",
    "lora-fa",
    "lora-ga",
    "corda",
}
"""Variants with plain LoRA layers: they differ in initialisation, scaling or optimiser only."""
FUSED = PLAIN | {"adalora", "dora"}


def gradients(model: Any, batch: dict[str, Any], layers: dict[Any, Any], **arithmetic: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with packing.attention(model), fused(layers):
        with torch.autocast("cpu", dtype=torch.bfloat16, **arithmetic):
            loss, count = answer_loss(model, batch)
        (loss / count).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None} | {"loss": loss.detach()}


@pytest.mark.parametrize("variant", cases(ADAPTERS))
def test_every_variant_of_fused_layers_has_the_same_gradients(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant)
    model = moved(plan).double().train()
    layers = fusable_layers(model)
    assert len(layers) == (len(list(adapter_modules(model))) if variant in FUSED else 0)
    assert fusable_layers(model, only_plain_lora=True).keys() == (layers.keys() if variant in PLAIN else set())
    if not layers:
        return
    encoder = Encoder(plan.task, plan.tokenizer)
    batch = packing.pack([encoder.example(i) for i in plan.mixture.train[:6]])
    usual, ours = (gradients(model, batch, found, enabled=False) for found in ({}, layers))
    assert usual.keys() == ours.keys() != {"loss"}
    for name, gradient in usual.items():
        assert float((gradient - ours[name]).norm()) <= 1e-10 * float(gradient.norm()), name
    assert all("forward" not in vars(layer) for layer in layers)


def test_the_output_of_a_fused_layer_may_be_changed_in_place(tmp_path: Path) -> None:
    """OLMo clips the outputs of its projections in place."""
    model = str(save_tiny_model(tmp_path / "olmo", config="OlmoConfig", clip_qkv=1.0))
    plan = plan_of(model, learning_rate="0.001")
    examples = [Encoder(plan.task, plan.tokenizer).example(item) for item in plan.mixture.train]
    assert fusable_layers(moved(plan)) != {}
    assert train(plan, examples, tmp_path, validate=lambda model, step: 0.0) is not None


@pytest.mark.parametrize("variant", ["lora", "adalora", "dora"])
def test_in_bf16_gradients_differ_no_more_than_rounding(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    batch = packing.pack([encoder.example(i) for i in plan.mixture.train[:6]])
    model = moved(plan, precision="bf16").train()
    exact = gradients(moved(plan, precision="fp32").train(), batch, {}, enabled=False)
    usual, ours = (gradients(model, batch, found, enabled=True) for found in ({}, fusable_layers(model)))
    apart, rounding = (sum(float((found[n] - exact[n]).norm()) for n in exact) for found in (ours, usual))
    # DoRA's outputs are rounded once more: after the base layer, the update, and the gain.
    assert 0 < apart < (1.5 if variant == "dora" else 1.3) * rounding


def test_layers_with_dropout_or_a_trained_base_are_not_fused(tiny_model: str) -> None:
    model = moved(plan_of(tiny_model, arm="recommended")).train()  # with dropout
    assert [module for _, module in adapter_modules(model) if type(module) is Linear] != []
    assert fusable_layers(model) == {}
    trained_base = moved(plan_of(tiny_model)).train()
    for _, module in adapter_modules(trained_base):
        module.get_base_layer().weight.requires_grad_(True)
    assert fusable_layers(trained_base) == {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("variant", "kind"), [("lora", Linear), ("adalora", SVDLinear), ("dora", Linear)])
def test_training_does_not_call_pefts_forward(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, kind: Any, precision: str
) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision=precision)
    encoder = Encoder(plan.task, plan.tokenizer)
    usual = kind.forward

    def watched(layer: Any, *arguments: Any, **more: Any) -> Any:
        assert not layer.training, "PEFT's forward was called in training"
        return usual(layer, *arguments, **more)

    monkeypatch.setattr(kind, "forward", watched)
    fitted = train(plan, [encoder.example(i) for i in plan.mixture.train], tmp_path, validate=lambda model, step: 0.0)
    assert fitted is not None
    with torch.no_grad():
        assert fitted.model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()
