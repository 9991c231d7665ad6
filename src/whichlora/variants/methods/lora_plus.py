"""Declares LoRA+: LoRA with a higher learning rate for B than for A."""

from __future__ import annotations

from typing import Any

from whichlora.variants.base import LEARNING_RATES, POSITIVE, Hyperparameters, SearchSpace, Variant
from whichlora.variants.methods.lora import check_scaling, lora_config, lora_parameter_count
from whichlora.variants.optimizers import check_two_rates, two_rates
from whichlora.variants.witness import Evidence


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
