"""Declares LoRA with an optimiser of its own: LoRA+ (a higher rate for B) and LoRA-FA (A is frozen)."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import (
    LEARNING_RATES,
    PEFT_COMPARISON,
    POSITIVE,
    QUERY_VALUE,
    Hyperparameters,
    SearchSpace,
    Variant,
)
from whichlora.variants.methods.lora import check_scaling, lora_config, lora_parameter_count
from whichlora.variants.optimizers import check_two_rates, two_rates
from whichlora.variants.witness import Evidence, check_changed


def _check_scaling_and_rates(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    check_two_rates(evidence, marker="lora_B", ratio=evidence.settings.options["rate_ratio"])


LORA_PLUS = Variant(
    name="lora-plus",
    title="LoRA+",
    paper="Hayou et al. 2024, arXiv 2402.12354",
    recommended=Hyperparameters(
        rank=8,
        alpha=16,
        learning_rate=5e-5,
        epochs=1,
        batch_size=32,
        warmup=0.0,
        scheduler="constant",
        source=(
            "the authors' Llama-7B MNLI script; the rate of A from their README's example, the ratio of B's to it from "
            "the paper's rule of thumb"
        ),
    ),
    matched_learning_rate=None,
    space=SearchSpace(learning_rate=(5e-6, 1e-5, *LEARNING_RATES[:5]), options={"rate_ratio": (4.0, 8.0, 16.0)}),
    options={"rate_ratio": 16.0},
    option_ranges={"rate_ratio": POSITIVE},
    build=lora_config,
    expected_parameters=lora_parameter_count,
    optimizer=lambda model, rate, decay, options: two_rates(
        model, rate, decay, marker="lora_B", ratio=options["rate_ratio"]
    ),
    witness=_check_scaling_and_rates,
)


def _freeze_a(model: Any) -> None:
    for _, module in adapter_modules(model):
        module.lora_A["default"].weight.requires_grad_(False)


def _lora_fa_optimizer(model: Any, learning_rate: float, weight_decay: float, options: Any) -> Any:
    """Return PEFT's optimiser, which projects the gradient of a full weight onto what a change of B can do."""
    from peft.optimizers import create_lorafa_optimizer

    config = model.peft_config["default"]
    return create_lorafa_optimizer(
        model, r=config.r, lora_alpha=config.lora_alpha, lr=learning_rate, weight_decay=weight_decay
    )


def _check_frozen_a(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    check_changed(model, evidence, "lora_B")
    trained = [name for name, p in model.named_parameters() if "lora_A" in name and p.requires_grad]
    if trained:
        raise ProofError(f"lora-fa freezes A, but {trained[0]} is trained")
    if type(evidence.optimizer).__name__ != "LoraFAOptimizer":
        raise ProofError(f"lora-fa was trained with {type(evidence.optimizer).__name__}")


LORA_FA = Variant(
    name="lora-fa",
    title="LoRA-FA",
    paper="Zhang et al. 2023, arXiv 2308.03303",
    recommended=Hyperparameters(
        rank=32,
        alpha=64,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (lora, rank32-lorafa)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(target_modules=(QUERY_VALUE, "all-linear")),
    build=lora_config,
    expected_parameters=lambda shapes, rank, options: sum(rank * n_out for _, n_out in shapes.values()),
    after_attach=_freeze_a,
    optimizer=_lora_fa_optimizer,
    witness=_check_frozen_a,
)
