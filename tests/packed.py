"""Models in training, and their gradients from packed and from padded examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import moved, plan_of

from whichlora.data.encoding import Encoded, Encoder
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss


def attached(folder: str, **options: Any) -> tuple[Any, list[Encoded], int]:
    """Return a model whose adapter is not at its initial values, examples in several languages, and the pad token."""
    plan = plan_of(folder, learning_rate="0.001", **options)
    model = moved(plan)
    encoder = Encoder(plan.task, plan.tokenizer)
    return model.double().train(), [encoder.example(item) for item in plan.mixture.train], plan.tokenizer.pad_token_id


def gradients(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients, with packed attention where the batch is packed.

    In float64, so that only real differences show; norms and the loss stay in float32.
    """
    model.zero_grad()
    torch.manual_seed(3)
    if "layout" in batch:
        with packing.attention(model):
            loss, count = answer_loss(model, batch)
            (loss / count).backward()
    else:
        loss, count = answer_loss(model, batch)
        (loss / count).backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys() != set()
    size = max(float(g.norm()) for g in other[1].values())
    for name, gradient in one[1].items():
        assert float((gradient - other[1][name]).norm()) < 1e-6 * size, name
