"""Declares GraLoRA: each weight is divided into blocks, each with a separate low-rank update."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.variants.base import (
    PEFT_COMPARISON,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
)
from whichlora.variants.methods.lora import lora_parameter_count
from whichlora.variants.witness import Evidence, check_base_unchanged


def _build(settings: AdapterSettings) -> Any:
    from peft import GraloraConfig

    return GraloraConfig(
        alpha=settings.alpha,
        gralora_dropout=settings.dropout,
        gralora_k=settings.options["blocks"],
        **settings.common(),
    )


def _check_blocks(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    k, rank = evidence.settings.options["blocks"], evidence.settings.rank
    for name, module in adapter_modules(model):
        shape = tuple(module.gralora_A["default"].shape)
        if shape != (k, module.in_features // k, rank):
            raise ProofError(
                f"the first factors of {name} have shape {shape} instead of {(k, module.in_features // k, rank)}"
            )
    weights = merged_weight(module)
    if weights is not None:
        change = weights[1] - weights[0]
        block = change[: change.shape[0] // k, : change.shape[1] // k]
        values = torch.linalg.svdvals(block)
        if not values[0] > 0 or bool((values[rank // k :] > 1e-4 * values[0]).any()):
            raise ProofError(f"a block of the update of {name} has a rank above {rank // k}")


def _check_rank(rank: int, shapes: Shapes, options: Any) -> str | None:
    k = options["blocks"]
    if rank % k:
        return f"gralora divides it among {k} rows of blocks; allowed are multiples of {k}"
    odd = [name for name, pair in shapes.items() if any(width % k for width in pair)]
    return (
        f"gralora divides both sides of a weight into {k} parts, which the shape of {odd[0]} does not allow"
        if odd
        else None
    )


GRALORA = Variant(
    name="gralora",
    title="GraLoRA",
    paper="Jung et al. 2025, arXiv 2505.20355",
    recommended=Hyperparameters(
        rank=32,
        alpha=64,
        learning_rate=2e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (gralora, rank32); 2 x 2 blocks up to rank 32 as PEFT advises",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(target_modules=(QUERY_VALUE, "all-linear")),
    options={"blocks": 2},
    option_ranges={"blocks": (1, 1024)},
    rank_means="total rank of the blocks in a row",
    build=_build,
    expected_parameters=lora_parameter_count,
    witness=_check_blocks,
    check_rank=_check_rank,
)
