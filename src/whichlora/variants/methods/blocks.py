"""Declares GraLoRA and BD-LoRA: low-rank updates of blocks of a weight, and one with a block-diagonal factor."""

from __future__ import annotations

from collections.abc import Mapping
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
from whichlora.variants.methods.lora import check_scaling, lora_config, lora_parameter_count
from whichlora.variants.witness import Evidence, check_base_unchanged


def _gralora_config(settings: AdapterSettings) -> Any:
    from peft import GraloraConfig

    return GraloraConfig(
        alpha=settings.alpha,
        gralora_dropout=settings.dropout,
        gralora_k=settings.options["blocks"],
        **settings.common(),
    )


def _check_gralora_blocks(model: Any, evidence: Evidence) -> None:
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


def _check_gralora_rank(rank: int, shapes: Shapes, options: Any) -> str | None:
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
    build=_gralora_config,
    expected_parameters=lora_parameter_count,
    witness=_check_gralora_blocks,
    check_rank=_check_gralora_rank,
)


_ROW_SHARDED = ("o_proj", "out_proj", "dense", "down_proj", "fc2", "w2", "dense_4h_to_h", "c_proj")
"""Last layers of attention and feed-forward blocks, which tensor parallelism divides by inputs and not by outputs."""


def _has_blocks_in_a(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the factor A of a layer is block-diagonal; in the other layers it is B."""
    return name.rpartition(".")[2] in options["row_sharded"]


def _bd_lora_config(settings: AdapterSettings) -> Any:
    from peft.tuners.lora import BdLoraConfig

    in_a = [name for name in settings.target_modules if _has_blocks_in_a(name, settings.options)]
    in_b = [name for name in settings.target_modules if name not in in_a]
    blocks = BdLoraConfig(target_modules_bd_a=in_a, target_modules_bd_b=in_b, nblocks=settings.options["blocks"])
    return lora_config(settings, use_bdlora=blocks)


def _bd_lora_parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    k = options["blocks"]
    return sum(
        rank * (n_in // k + n_out if _has_blocks_in_a(name, options) else n_in + n_out // k)
        for name, (n_in, n_out) in shapes.items()
    )


def _check_block_diagonal(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    options, rank = evidence.settings.options, evidence.settings.rank
    for name, module in adapter_modules(model):
        in_a = _has_blocks_in_a(name, options)
        factor = (module.lora_A if in_a else module.lora_B)["default"]
        rows, columns = (rank, module.in_features) if in_a else (module.out_features, rank)
        expected = (rows, columns // options["blocks"])
        if tuple(factor.weight.shape) != expected:
            raise ProofError(f"a factor of {name} has shape {tuple(factor.weight.shape)}; its blocks have {expected}")


def _check_bd_lora_rank(rank: int, shapes: Shapes, options: Mapping[str, Any]) -> str | None:
    k = options["blocks"]
    if rank % k:
        return f"bd-lora divides it among {k} blocks; allowed are multiples of {k}"
    odd = [name for name, pair in shapes.items() if pair[not _has_blocks_in_a(name, options)] % k]
    return f"bd-lora divides a factor into {k} blocks, which the shape of {odd[0]} does not allow" if odd else None


BD_LORA = Variant(
    name="bd-lora",
    title="BD-LoRA",
    paper="Wang et al. 2025, arXiv 2510.23346",
    recommended=Hyperparameters(
        rank=14,
        alpha=28,
        learning_rate=1e-4,
        target_modules=("gate_proj", "up_proj", "down_proj"),
        source="PEFT's method_comparison/MetaMathQA (lora, rank14-target-mlp-bdlora)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=12,  # on the packaged model about as many parameters as LoRA of rank 8
    space=SearchSpace(target_modules=(("gate_proj", "up_proj", "down_proj"), "all-linear")),
    options={"blocks": 2, "row_sharded": list(_ROW_SHARDED)},
    option_ranges={"blocks": (1, 1024)},
    build=_bd_lora_config,
    expected_parameters=_bd_lora_parameters,
    witness=_check_block_diagonal,
    quantizable=False,  # on an NF4 base PEFT trains plain LoRA
    check_rank=_check_bd_lora_rank,
)
