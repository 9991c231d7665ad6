"""Declares Hybrid-LoRA: full training of some weights within a budget of parameters, and LoRA for the other layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, full_modules, merged_weight, trained_copy
from whichlora.variants.base import POSITIVE, Hyperparameters, SearchSpace, Variant
from whichlora.variants.methods.lora import check_scaling, lora_config, lora_parameter_count
from whichlora.variants.optimizers import check_two_rates, two_rates
from whichlora.variants.selection import check_selection, select
from whichlora.variants.witness import Evidence, weight_digest

_FULL = "modules_to_save"
"""Part of the names of tensors that PEFT trains in full."""


def _optimizer(model: Any, learning_rate: float, weight_decay: float, options: Mapping[str, Any]) -> Any:
    """Return AdamW with a separate rate for weights trained in full; None, as for LoRA, if there are none."""
    if not any(True for _ in full_modules(model)):
        return None
    return two_rates(model, learning_rate, weight_decay, marker=_FULL, ratio=options["full_rate"])


def _check_both_parts(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    full, adapted = dict(full_modules(model)), dict(adapter_modules(model))
    if evidence.settings.options["full_share"] and not full:
        raise ProofError("no weight was trained in full")
    if full and adapted:
        check_two_rates(evidence, marker=_FULL, ratio=evidence.settings.options["full_rate"])
    for name, module in full.items():
        before = weight_digest(module.original_module.weight)
        if before != evidence.base[name]:
            raise ProofError(f"the base weight of {name} changed, beside its copy that is trained")
        if weight_digest(trained_copy(module).weight) == before:
            raise ProofError(f"the weight of {name}, which is trained in full, did not change")
    if full:
        _check_rank(full, evidence.settings.rank)


def _check_rank(full: Mapping[str, Any], rank: int) -> None:
    """Check that the update of the smallest weight trained in full has a rank that LoRA cannot reach.

    Raises:
        ProofError: It has not.
    """
    import torch

    name, module = min(full.items(), key=lambda pair: trained_copy(pair[1]).weight.numel())
    weights = merged_weight(module, torch.float64)
    assert weights is not None
    update = weights[1] - weights[0]
    tolerance = max(update.shape) * torch.finfo(torch.float32).eps
    found = int(torch.linalg.matrix_rank(update, rtol=tolerance))
    if found <= rank < min(update.shape):
        raise ProofError(f"the update of {name}, which is trained in full, has rank {found}, which LoRA could reach")


HYBRID_LORA = Variant(
    name="hybrid-lora",
    title="Hybrid-LoRA",
    paper="Zhang et al. 2026, arXiv 2605.18822",
    recommended=Hyperparameters(
        rank=64,
        alpha=128,
        learning_rate=2.5e-5,
        epochs=1,
        batch_size=64,
        warmup=0.16,
        weight_decay=0.01,
        scheduler="cosine",
        source=(
            "modelscope/twinkle, spectral_hybrid_lora.sh (Qwen3.5-9B, 1,000 items), its 10 warm-up steps as a share of "
            "63; the share of 10 % from the paper's abstract, whose score, ranks and rates are not public"
        ),
    ),
    matched_learning_rate=None,
    space=SearchSpace(options={"full_rate": (0.01, 0.04, 0.1, 0.25)}),
    options={"selection": "gradient", "full_share": 0.1, "full_rate": 0.04},
    option_ranges={"full_share": (0.0, 1.0), "full_rate": POSITIVE},
    check_options=check_selection,
    rank_means="rank of the update of the layers that are not trained in full",
    build=lora_config,
    expected_parameters=lora_parameter_count,
    fully_trained=select,
    optimizer=_optimizer,
    witness=_check_both_parts,
    quantizable=False,
)
