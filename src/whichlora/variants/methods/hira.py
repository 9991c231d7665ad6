"""Declares HiRA: the update is the elementwise product of the weight and a low-rank matrix."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.base import (
    HIGH_LEARNING_RATES,
    LLAMA_ATTENTION_MLP,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
)
from whichlora.variants.methods.lora import lora_parameter_count
from whichlora.variants.witness import Evidence, check_base_unchanged, first_layer


def _build(settings: AdapterSettings) -> Any:
    from peft import HiraConfig

    return HiraConfig(hira_dropout=settings.dropout, **settings.common())


def _check_hadamard(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    name, module, weights = first_layer(model)
    if weights is None:
        return
    before, after = weights
    factors = module.hira_B["default"].detach().cpu().float() @ module.hira_A["default"].detach().cpu().float()
    if before.equal(after) or not (after - before).allclose(before * factors, atol=1e-5 * float(before.abs().max())):
        raise ProofError(f"the update of {name} is not the product of its weight and the low-rank matrix")


HIRA = Variant(
    name="hira",
    title="HiRA",
    paper="Huang et al. 2025, ICLR (OpenReview TwJrTz9cRS)",
    recommended=Hyperparameters(
        rank=32,
        learning_rate=1e-3,
        epochs=3,
        batch_size=16,
        warmup=0.003,
        weight_decay=0.01,
        target_modules=LLAMA_ATTENTION_MLP,
        source=(
            "the authors' README and train_hira.py (Llama-3-8B, commonsense 170k); 100 warm-up steps as a share of the "
            "run"
        ),
    ),
    matched_learning_rate=None,
    space=SearchSpace(alpha=(), learning_rate=HIGH_LEARNING_RATES, target_modules=(LLAMA_ATTENTION_MLP, "all-linear")),
    build=_build,
    expected_parameters=lora_parameter_count,
    witness=_check_hadamard,
)
