"""NF4 on the CPU: all adapters are trained, and packed weights of bitsandbytes, which block gradients, are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import plan_of, run_of

from whichlora.errors import OptionError, ProofError
from whichlora.models import loading
from whichlora.models.loading import load_model
from whichlora.testing import save_tiny_model
from whichlora.training import adapter
from whichlora.training.verification import GRADIENT_STEPS, prove_gradients, prove_trained
from whichlora.variants import CATALOGUE
from whichlora.variants.witness import Evidence

bitsandbytes = pytest.importorskip("bitsandbytes")
from bitsandbytes.functional import has_avx512bf16  # noqa: E402


def attached(model: str) -> tuple[Any, Evidence]:
    """Return an NF4 model with LoRA, and the evidence about its training."""
    plan = plan_of(model, quantization="nf4", precision="bf16")
    torch.manual_seed(0)
    base = load_model(plan.source, precision="bf16", quantization="nf4")
    adapted, evidence, _ = adapter.attach(base, plan, total_steps=5)
    return adapted, evidence


def look_at_gradients(model: Any, evidence: Evidence) -> None:
    """Train for the steps within which every module must have had a gradient."""
    ids = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(GRADIENT_STEPS):
        logits = model(input_ids=ids).logits.float()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        prove_gradients(evidence)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_validation_between_its_epochs_trains_and_reloads(
    store: Path, tiny_model: str, precision: str
) -> None:
    plan = plan_of(tiny_model, quantization="nf4", precision=precision, epochs=2, validation_size=30)
    assert "test/en/f1" in run_of(plan).metrics


def test_every_module_gets_a_gradient_after_a_pass_in_eval_mode(tiny_model: str) -> None:
    model, evidence = attached(tiny_model)
    with torch.inference_mode():
        model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    look_at_gradients(model, evidence)
    assert evidence.without_gradient == {}


@pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes packs weights on CPUs with AVX512-BF16 alone")
def test_packed_weights_are_noticed(tmp_path: Path) -> None:
    """Gradient checks in the first steps do not show it: from the second step on some gradients reach the adapters."""
    wide = save_tiny_model(tmp_path / "wide", hidden_size=64, intermediate_size=128)  # packing takes blocks of 64
    model, evidence = attached(str(wide))
    look_at_gradients(model, evidence)
    prove_trained(model, CATALOGUE["lora"], evidence)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = True  # as bitsandbytes sets it
    with torch.inference_mode():
        model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    with pytest.raises(ProofError, match="packed for inference"):
        prove_trained(model, CATALOGUE["lora"], evidence)


def test_without_the_package_nf4_is_refused(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="quantization=nf4: needs the package bitsandbytes"):
        plan_of(tiny_model, quantization="nf4")
