"""What only a GPU can show: packed gradients, 4-bit training, telemetry of the device; run by `benchmarks/gpu.sh`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import moved, plan_of, run_of

from whichlora.data.batching import collate, to_device
from whichlora.data.encoding import Encoder
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def gradients(model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with packing.attention(model) if "layout" in batch else nullcontext():
        loss, _ = answer_loss(model, to_device(batch, model.device))
        loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("variant", ["lora", "dora", "vera"])
def test_packed_texts_have_the_gradients_of_padded_ones(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, variant=variant, precision="fp32")
    model = moved(plan)
    encoder = Encoder(plan.task, plan.tokenizer)
    examples = [encoder.example(item) for item in plan.mixture.train[:6]]
    padded = gradients(model, collate(examples, int(plan.tokenizer.pad_token_id)))  # type: ignore[arg-type]
    packed = gradients(model, packing.pack(examples))
    assert padded.keys() == packed.keys()
    assert max(float((packed[n] - g).norm() / g.norm()) for n, g in padded.items() if g.norm() > 0) < 1e-4


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_run_is_trained_scored_and_logged_with_figures_of_the_device(
    store: Path, tiny_model: str, quantization: str
) -> None:
    metrics = run_of(plan_of(tiny_model, precision="bf16", quantization=quantization)).metrics
    assert {"test/en/f1", "gpu/memory_max_mb", "gpu/torch_peak_mb"} <= metrics.keys()
    assert metrics["gpu/torch_peak_mb"] > 0
