"""DoRA with closed-form norms computes what PEFT's computes, and no adapted weight is materialised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.dora import DoraLinearLayer
from runs import moved, plan_of

from whichlora.data.encoding import Encoder
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels.dora import use_closed_form_norms, weight_norm
from whichlora.training import base_cache
from whichlora.training.trainer import train


def test_the_norm_is_that_of_the_adapted_weight() -> None:
    torch.manual_seed(1)
    weight, a, b = (torch.randn(shape, dtype=torch.float64) for shape in ((24, 16), (4, 16), (24, 4)))
    norm = weight_norm(weight.square().sum(dim=1), weight, a, b, 0.7)
    assert torch.allclose(norm, torch.linalg.norm(weight + 0.7 * b @ a, dim=1), rtol=1e-12)


def test_an_update_that_cancels_the_weight_has_a_norm_near_zero() -> None:
    """Rounding may leave a negative square, which is clamped before the root."""
    torch.manual_seed(1)
    weight = torch.randn(24, 16)
    norm = weight_norm(weight.square().sum(dim=1), weight, torch.eye(16), -weight, 1.0)
    assert float(norm.max()) < 1e-2


def usual_and_closed_form(model: Any, batch: dict[str, Any], **context: Any) -> list[dict[str, torch.Tensor]]:
    """Return the gradients with PEFT's norms and with closed-form norms."""
    found = []
    for closed_form in (False, True):
        if closed_form:
            use_closed_form_norms(model)
        model.zero_grad()
        torch.manual_seed(3)  # of dropout
        with packing.attention(model), torch.autocast("cpu", dtype=torch.bfloat16, **context):
            loss, count = answer_loss(model, batch)
        (loss / count).backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    return found


def batch_of(plan: Any, model: Any) -> dict[str, Any]:
    encoder = Encoder(plan.task, plan.tokenizer)
    return packing.pack([encoder.example(i) for i in plan.mixture.train[:6]], share=packing.can_share_prefixes(model))


@pytest.mark.parametrize("arm", ["matched", "recommended"])  # without dropout and with it, on other modules
def test_gradients_are_those_of_peft(tiny_model: str, arm: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant="dora", arm=arm)
    model = moved(plan).double().train()
    usual, ours = usual_and_closed_form(model, batch_of(plan, model), enabled=False)
    assert usual.keys() == ours.keys() != set()
    for name, gradient in usual.items():
        assert float((gradient - ours[name]).norm()) < 1e-6 * float(gradient.norm()), name


def test_in_bf16_gradients_differ_as_little_as_rounding(tiny_model: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant="dora", precision="bf16")
    model = moved(plan, precision="bf16").train()
    usual, ours = usual_and_closed_form(model, batch_of(plan, model), enabled=True)
    for name, gradient in usual.items():
        assert float((gradient - ours[name]).norm()) < 0.05 * float(gradient.norm()), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_and_scoring_do_not_call_pefts_norms(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant="dora", precision=precision)
    encoder = Encoder(plan.task, plan.tokenizer)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("PEFT's forward was called")

    monkeypatch.setattr(DoraLinearLayer, "forward", refused)
    examples = [encoder.example(item) for item in plan.mixture.train]
    fitted = train(plan, examples, tmp_path, validate=lambda model, step: 0.0)
    assert fitted is not None
    fitted.model.save_pretrained(tmp_path / "adapter")
    with base_cache.saved_model(plan, tmp_path / "adapter") as model, torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()
