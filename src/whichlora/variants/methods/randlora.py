"""Declares RandLoRA: a full-rank update as a trained sum of frozen random low-rank bases shared by all layers."""

from __future__ import annotations

import math
from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.variants.base import (
    LLAMA_ATTENTION_MLP,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
    narrowest,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, check_shared


def _build(settings: AdapterSettings) -> Any:
    from peft import RandLoraConfig

    # The bases are drawn from the run's seed and saved, for the reasons given in vera.py.
    return RandLoraConfig(
        randlora_alpha=settings.alpha,
        randlora_dropout=settings.dropout,
        projection_prng_key=settings.seed,
        save_projection=True,
        **settings.common(),
    )


def _parameters(shapes: Shapes, rank: int, options: Any) -> int:
    narrow = [min(pair) for pair in shapes.values()]
    return sum(math.ceil(width / rank) * (rank + width) for width in narrow)


def _check_full_rank(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    check_shared(model, "randlora_A", "randlora_B")
    name, module = next(iter(adapter_modules(model)))
    weights = merged_weight(module)
    if weights is not None:
        rank = int(torch.linalg.matrix_rank(weights[1] - weights[0]))
        if rank <= evidence.settings.rank < min(weights[0].shape):
            raise ProofError(f"the update of {name} has rank {rank}, which a single basis could reach")


RANDLORA = Variant(
    name="randlora",
    title="RandLoRA",
    paper="Albert et al. 2025, arXiv 2502.00987",
    recommended=Hyperparameters(
        rank=32,
        alpha=640,
        dropout=0.05,
        learning_rate=1e-4,
        epochs=3,
        batch_size=16,
        warmup=0.003,
        target_modules=LLAMA_ATTENTION_MLP,
        source=(
            "the paper's appendix C.4 and the authors' commonsense script (Llama-3-8B), 100 warm-up steps as a share "
            "of the run; rank and alpha from PEFT's method_comparison/MetaMathQA"
        ),
    ),
    matched_learning_rate=None,
    matched_rank=32,
    matched_alpha=640,
    space=SearchSpace(rank=(16, 32, 64), alpha=(320, 640, 1280), target_modules=(LLAMA_ATTENTION_MLP, "all-linear")),
    rank_means="rank of each random basis; a higher rank has fewer parameters",
    build=_build,
    expected_parameters=_parameters,
    witness=_check_full_rank,
    rank_limit=narrowest,
)
