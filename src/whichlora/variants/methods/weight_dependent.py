"""Declares DEFT and GLoRA, whose updates depend on the weight: part of it is replaced, or scaled and shifted."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.base import (
    PEFT_COMPARISON,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
    lora_parameters,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, first_layer


def _deft_config(settings: AdapterSettings) -> Any:
    from peft import DeftConfig

    return DeftConfig(alpha=settings.alpha, deft_dropout=settings.dropout, **settings.common())


def _check_replacement(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    name, module, weights = first_layer(model)
    assert weights is not None
    directions, injected = (part["default"].detach().cpu().float() for part in (module.deft_P, module.deft_R))
    scale = evidence.settings.alpha / injected.shape[0]
    expected = directions @ (scale * injected - directions.relu().T @ weights[0])
    change = weights[1] - weights[0]
    if not change.any() or not change.allclose(expected, atol=1e-5 * float(weights[0].abs().max())):
        raise ProofError(f"the update of {name} does not replace what its directions remove")


DEFT = Variant(
    name="deft",
    title="DEFT",
    paper="Kumar et al. 2025, arXiv 2509.22793",
    recommended=Hyperparameters(
        rank=32,
        alpha=128,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (deft, rank32)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(target_modules=(QUERY_VALUE, "all-linear")),
    rank_means="number of directions that are removed and replaced",
    build=_deft_config,
    expected_parameters=lambda shapes, rank, options: sum(
        min(rank, n_out) * (n_in + n_out) for n_in, n_out in shapes.values()
    ),
    witness=_check_replacement,
    quantizable=False,
)


def _glora_config(settings: AdapterSettings) -> Any:
    from peft import GloraConfig

    # No path changes a bias, as in all other methods here; on layers without one this is PEFT's default.
    return GloraConfig(config_A_B="lora", config_C="none", config_D_E="none", **settings.common())


def _check_scale_and_shift(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    name, module, weights = first_layer(model)
    assert weights is not None
    scale, shift = (path["default"]().detach().cpu().float() for path in (module.glora_A, module.glora_B))
    if not scale.any() or not shift.any():
        raise ProofError(f"the weight of {name} was not both scaled and shifted")
    expected = weights[0] * (1 + scale) + shift
    if not weights[1].allclose(expected, atol=1e-5 * float(weights[0].abs().max())):
        raise ProofError(f"the update of {name} is not its weight scaled, and shifted, by low-rank matrices")


GLORA = Variant(
    name="glora",
    title="GLoRA",
    paper="Chavan et al. 2023, arXiv 2306.07967",
    recommended=Hyperparameters(
        rank=8,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (glora, default)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(alpha=(), target_modules=(QUERY_VALUE, "all-linear")),
    rank_means="rank of each of the two matrices, which scale and shift the weight",
    build=_glora_config,
    expected_parameters=lambda shapes, rank, options: 2 * lora_parameters(shapes.values(), rank),
    witness=_check_scale_and_shift,
    quantizable=False,
)
