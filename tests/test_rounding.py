"""What is left out of PEFT's conversions changes no gradient, and no answer by more than bf16 does anyway."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from runs import moved, plan_of

from whichlora import packing
from whichlora.encoding import Encoder
from whichlora.likelihood import label_probabilities
from whichlora.objectives import answer_tokens
from whichlora.rounding import castable, narrow, uncast
from whichlora.training import train
from whichlora.variants import CATALOGUE

ADAPTERS = [name for name, variant in CATALOGUE.items() if variant.kind == "adapter"]


@pytest.mark.parametrize("variant", ADAPTERS)
def test_every_variant_has_the_same_gradients_without_the_conversion(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    model = moved(plan, precision="bf16").train()
    batch = packing.pack([encoder.example(item) for item in plan.mixture.train[:6]], share=packing.can_share(model))
    layers = castable(model)
    assert not layers if variant == "dora" else all(layer.cast_input_dtype_enabled for layer in layers)

    def gradients(*, without: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        with (
            packing.attention(model),
            torch.autocast("cpu", dtype=torch.bfloat16),
            uncast(layers) if without else nullcontext(),
        ):
            loss, count = answer_tokens(model, batch)
            (loss / count).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    usual, ours = gradients(without=False), gradients(without=True)
    assert usual.keys() == ours.keys() != set()
    for name, gradient in usual.items():
        assert torch.equal(gradient, ours[name]), name
    assert all(layer.cast_input_dtype_enabled for layer in layers)


@pytest.mark.parametrize(("precision", "seen"), [("bf16", {torch.bfloat16}), ("fp32", {torch.float32})])
def test_training_does_without_the_conversion(
    tiny_model: str, tmp_path: Path, precision: str, seen: set[torch.dtype]
) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant="lora", precision=precision)
    encoder = Encoder(plan.task, plan.tokenizer)
    found: set[torch.dtype] = set()

    def watch(module: Any, inputs: Any) -> None:
        if isinstance(module, torch.nn.Linear) and module.out_features == plan.spec.rank:
            found.add(inputs[0].dtype)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        train(plan, [encoder.example(item) for item in plan.mixture.train], tmp_path, validate=lambda model, step: 0.0)
    finally:
        hook.remove()
    assert found == seen


@pytest.mark.parametrize("variant", ["lora", "pissa", "dora", "vera"])
def test_narrow_factors_answer_as_wide_ones(tiny_model: str, variant: str) -> None:
    """The model's own rounding to bf16 moves probabilities as much or more."""
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    items = [item for part in plan.mixture.test.values() for item in part]
    model = moved(plan, precision="bf16").eval()

    def probabilities(model: Any) -> Any:
        with torch.no_grad():
            return label_probabilities(model, encoder, items, name="test")

    wide = probabilities(model)
    exact = probabilities(moved(plan, precision="fp32").eval())
    narrow(model)
    dtypes = {p.dtype for module in model.modules() if type(module) is Linear for p in module.lora_A.parameters()}
    assert dtypes == {"lora": {torch.bfloat16}, "pissa": {torch.bfloat16}, "dora": {torch.float32}}.get(variant, set())
    assert abs(probabilities(model) - wide).mean() <= abs(wide - exact).mean()
