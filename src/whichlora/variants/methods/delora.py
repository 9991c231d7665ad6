"""Declares DeLoRA: LoRA with normalised directions, whose strength is bounded by a trained scalar."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.base import (
    HIGH_LEARNING_RATES,
    POSITIVE,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
    lora_parameters,
)
from whichlora.variants.optimizers import check_two_rates, two_rates
from whichlora.variants.witness import Evidence, check_base_unchanged, check_changed, first_layer


def _build(settings: AdapterSettings) -> Any:
    from peft import DeloraConfig

    return DeloraConfig(delora_lambda=settings.options["lambda"], module_dropout=settings.dropout, **settings.common())


def _check_bound(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "delora_lambda")
    check_two_rates(evidence, marker="delora_lambda", ratio=evidence.settings.options["lambda_rate_ratio"])
    name, module, weights = first_layer(model)
    assert weights is not None
    norms = weights[0].norm(dim=0)
    strength = float(((weights[1] - weights[0]) / norms).norm())
    bound = abs(float(module.delora_lambda["default"].detach()))
    if not 0 < strength <= 1.001 * bound:
        raise ProofError(f"the update of {name} has strength {strength:.4f}; its bound lambda is {bound:.4f}")


DELORA = Variant(
    name="delora",
    title="DeLoRA",
    paper="Bini et al. 2025, arXiv 2503.18225",
    recommended=Hyperparameters(
        rank=8,
        learning_rate=1e-2,
        epochs=1,
        batch_size=8,
        warmup=0.015,
        target_modules=QUERY_VALUE,
        source=(
            "the paper's appendix B (Llama 2 7B on Alpaca); its 100 warm-up steps as a share of the run; no schedule "
            "given"
        ),
    ),
    matched_learning_rate=None,
    space=SearchSpace(alpha=(), learning_rate=HIGH_LEARNING_RATES, target_modules=(QUERY_VALUE, "all-linear")),
    options={"lambda": 8, "lambda_rate_ratio": 0.5},
    option_ranges={"lambda": POSITIVE, "lambda_rate_ratio": POSITIVE},
    build=_build,
    expected_parameters=lambda shapes, rank, options: lora_parameters(shapes.values(), rank) + len(shapes),
    optimizer=lambda model, rate, decay, options: two_rates(
        model, rate, decay, marker="delora_lambda", ratio=options["lambda_rate_ratio"]
    ),
    witness=_check_bound,
    quantizable=False,
)
