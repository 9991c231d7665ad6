"""Leaving out PEFT's dtype casts changes no gradient, and rounding factors no answer by more than bf16 does anyway."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import ADAPTERS, cases
from peft.tuners.lora import Linear
from runs import moved, plan_of

from whichlora.data.encoding import Encoder
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels import low_rank
from whichlora.models.kernels.bf16 import (
    adapter_to_weight_dtype,
    layers_with_needless_cast,
    skip_input_cast,
)
from whichlora.training import adapter, base_cache
from whichlora.training.trainer import train

KEEP_CAST = {
    *("dora", "vera", "ia3", "delora", "gralora", "fourierft", "shira", "road"),
    *("lily", "frod", "c3a", "bd-lora", "psoft", "glora", "waveft", "uni-lora", "vb-lora"),
}
"""Variants whose layers keep the cast: DoRA's because of its norms, the others because PEFT has no flag for them."""


@pytest.mark.parametrize("variant", cases(ADAPTERS))
def test_every_variant_has_the_same_gradients_without_the_cast(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    model = moved(plan, precision="bf16").train()
    batch = packing.pack(
        [encoder.example(item) for item in plan.mixture.train[:6]], share=packing.can_share_prefixes(model)
    )
    layers = layers_with_needless_cast(model)
    wrapped = [module for _, module in adapter_modules(model)]
    assert len(layers) == (0 if variant in KEEP_CAST else len(wrapped))

    def gradients(*, without: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        with (
            packing.attention(model),
            torch.autocast("cpu", dtype=torch.bfloat16),
            skip_input_cast(layers) if without else nullcontext(),
        ):
            loss, count = answer_loss(model, batch)
            (loss / count).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    usual, ours = gradients(without=False), gradients(without=True)
    assert usual.keys() == ours.keys() != set()
    for name, gradient in usual.items():
        assert torch.equal(gradient, ours[name]), name
    assert all(layer.cast_input_dtype_enabled for layer in layers)


@pytest.mark.parametrize(("precision", "casts"), [("bf16", False), ("fp32", True)])
def test_training_leaves_out_the_cast_in_bf16(tiny_model: str, tmp_path: Path, precision: str, casts: bool) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant="adalora", precision=precision)
    encoder = Encoder(plan.task, plan.tokenizer)
    seen: set[bool] = set()

    def watch(module: Any, inputs: Any) -> None:
        if module.training and hasattr(module, "cast_input_dtype_enabled"):
            seen.add(module.cast_input_dtype_enabled)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        train(plan, [encoder.example(item) for item in plan.mixture.train], tmp_path, validate=lambda model, step: 0.0)
    finally:
        hook.remove()
    assert seen == {casts}


def test_with_dropout_inputs_are_cast(tiny_model: str) -> None:
    """In bf16 dropout multiplies by a rounded 1 / (1 - p)."""
    plan = plan_of(tiny_model, variant="lora", arm="recommended", precision="bf16")
    assert plan.spec.dropout > 0
    assert layers_with_needless_cast(moved(plan, precision="bf16").train()) == []


@pytest.mark.parametrize("variant", ["lora", "pissa"])
def test_a_saved_adapter_scores_in_bf16_as_it_was_trained(tiny_model: str, tmp_path: Path, variant: str) -> None:
    """PiSSA is saved as the difference of two far larger adapters, so its factors must not be rounded."""
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    fitted = train(plan, [encoder.example(i) for i in plan.mixture.train], tmp_path, validate=lambda model, step: 0.0)
    assert fitted is not None
    adapter.save(fitted.model, plan, tmp_path / "adapter", initial=tmp_path)
    with torch.no_grad(), base_cache.saved_model(plan, tmp_path / "adapter") as model:
        read = {name: module.get_delta_weight("default").float() for name, module in adapter_modules(model)}
        fused = {"forward" in vars(module) for _, module in adapter_modules(model)}
    assert fused == {variant == "lora"}
    exact = adapter.load_saved(plan, tmp_path / "adapter", base=base_cache.checkout(plan))
    with torch.no_grad():
        for name, module in adapter_modules(exact):
            update = module.lora_B["default"].weight @ module.lora_A["default"].weight * module.scaling["default"]
            assert (read[name] - update).norm() < 0.01 * update.norm(), name


@pytest.mark.parametrize("variant", ["lora", "dora", "vera"])
def test_bf16_factors_answer_as_fp32_ones(tiny_model: str, variant: str) -> None:
    """Rounding the whole model to bf16 changes probabilities as much or more."""
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant, precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    items = [item for test in plan.tests.values() for item in test.items]
    model = moved(plan, precision="bf16").eval()

    def probabilities(model: Any) -> Any:
        with torch.no_grad():
            return label_probabilities(model, encoder, items, name="test")

    wide = probabilities(model)
    exact = probabilities(moved(plan, precision="fp32").eval())
    adapter_to_weight_dtype(model)
    layers = low_rank.fusable_layers(model)
    dtypes = {p.dtype for module in model.modules() if type(module) is Linear for p in module.lora_A.parameters()}
    assert dtypes == {"lora": {torch.bfloat16}, "dora": {torch.float32}}.get(variant, set())
    rounding = abs(wide - exact).mean()
    assert abs(probabilities(model) - wide).mean() <= rounding
    with low_rank.fused(layers):
        assert abs(probabilities(model) - wide).mean() <= rounding
