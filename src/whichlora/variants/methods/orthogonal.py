"""Declares OFT, HRA and PSOFT, which rotate the inputs of a weight, or its principal subspace alone."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import (
    LEARNING_RATES,
    PEFT_COMPARISON,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
    narrowest,
    narrowest_input,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, first_layer


def _check_rotation(model: Any, evidence: Evidence) -> None:
    """Check in one layer that the weight changed but the inner products of its rows did not.

    Raises:
        ProofError: the weight did not change, or not by an orthogonal map.
    """
    check_base_unchanged(model, evidence)
    name, _, weights = first_layer(model)
    if weights is None:
        return
    before, after = weights
    if before.equal(after):
        raise ProofError(f"the weight of {name} was not rotated")
    gram = before @ before.T
    distance = float((after @ after.T - gram).abs().max() / gram.abs().max())
    if distance > 1e-3:
        raise ProofError(
            f"the change of {name} is not orthogonal: inner products changed by {distance:.4f} of the largest"
        )


def _check_blocks(model: Any, evidence: Evidence) -> None:
    _check_rotation(model, evidence)
    size = evidence.settings.rank
    for name, module in adapter_modules(model):
        shape = tuple(module.oft_R["default"].weight.shape)
        if shape != (module.in_features // size, size * (size - 1) // 2):
            raise ProofError(f"{name} is not rotated in blocks of {size}: its parameters have shape {shape}")


def _oft_config(settings: AdapterSettings) -> Any:
    from peft import OFTConfig

    common = settings.common()
    # Use the exact Cayley transform: OFTv2's truncated series is orthogonal only for small angles.
    return OFTConfig(
        oft_block_size=common.pop("r"), r=0, module_dropout=settings.dropout, use_cayley_neumann=False, **common
    )


def _check_block_size(rank: int, shapes: Shapes, options: Any) -> str | None:
    widths = sorted({n_in for n_in, _ in shapes.values()})
    if rank >= 2 and all(width % rank == 0 for width in widths):
        return None
    sizes = [str(b) for b in range(2, min(widths) + 1) if all(width % b == 0 for width in widths)]
    return f"oft's block size must divide the inputs of every adapted layer; allowed are {', '.join(sizes)}"


OFT = Variant(
    name="oft",
    title="OFT",
    paper="Qiu et al. 2023, arXiv 2306.07280; inputs rotated as in OFTv2, arXiv 2506.19847",
    recommended=Hyperparameters(
        rank=32,
        learning_rate=8e-4,
        epochs=10,
        batch_size=64,
        warmup=0.0,
        source="OFTv2's Table 9 (Llama 2 on GSM8K, batches of 16 accumulated 4 times; it gives no warm-up or schedule)",
    ),
    matched_learning_rate=None,
    matched_rank=32,
    space=SearchSpace(rank=(16, 32, 64), alpha=()),
    rank_means="block size",
    changes_input=True,
    build=_oft_config,
    expected_parameters=lambda shapes, rank, options: sum(n_in * (rank - 1) // 2 for n_in, _ in shapes.values()),
    witness=_check_blocks,
    rank_limit=narrowest_input,
    check_rank=_check_block_size,
)


def _hra_config(settings: AdapterSettings) -> Any:
    from peft import HRAConfig

    return HRAConfig(**settings.common())


HRA = Variant(
    name="hra",
    title="HRA",
    paper="Yuan et al. 2024, arXiv 2405.17484",
    recommended=Hyperparameters(
        rank=8,
        learning_rate=1e-5,
        epochs=2,
        batch_size=32,
        warmup=0.005,
        scheduler="cosine",
        target_modules=QUERY_VALUE,
        source="the authors' llama/tune.sh (MetaMathQA), whose rate the paper gives for HRA without regularisation",
    ),
    matched_learning_rate=None,
    space=SearchSpace(alpha=(), learning_rate=(5e-6, 1e-5, *LEARNING_RATES)),
    rank_means="number of reflections",
    build=_hra_config,
    expected_parameters=lambda shapes, rank, options: sum(rank * n_in for n_in, _ in shapes.values()),
    witness=_check_rotation,
    quantizable=False,
    rank_limit=narrowest_input,
    # Reflections are initialised in pairs that cancel.
    check_rank=lambda rank, shapes, options: (
        "must be even, because hra initialises reflections in pairs that cancel" if rank % 2 else None
    ),
)


def _psoft_config(settings: AdapterSettings) -> Any:
    from peft import PsoftConfig

    # PEFT divides the principal part by alpha / rank and multiplies by it again, so alpha has no effect.
    return PsoftConfig(psoft_alpha=settings.rank, psoft_dropout=settings.dropout, **settings.common())


def _check_principal_rotation(model: Any, evidence: Evidence) -> None:
    """Check in one layer that the update is in the principal subspace, and a rotation between two scalings there.

    Raises:
        ProofError: it is not, or there is none.
    """
    import torch

    check_base_unchanged(model, evidence)
    name, module, weights = first_layer(model)
    assert weights is not None
    rank, change = evidence.settings.rank, weights[1] - weights[0]
    left, values, right = torch.linalg.svd(weights[0], full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    inside = left @ (left.T @ change @ right.T) @ right
    if not change.any() or not change.allclose(inside, atol=1e-3 * float(weights[0].abs().max())):
        raise ProofError(f"the update of {name} is not in the subspace of its first {rank} singular vectors")
    turn = left.T @ weights[1] @ right.T / values[:, None]
    scales = (getattr(module.psoft_R["default"], vector).detach().cpu().float() for vector in ("vector_b", "vector_a"))
    rotation = turn / next(scales)[:, None] / next(scales)
    distance = float((rotation @ rotation.T - torch.eye(rank)).abs().max())
    if distance > 1e-2:
        raise ProofError(f"the principal subspace of {name} is not rotated: {distance:.3f} from an orthogonal matrix")


PSOFT = Variant(
    name="psoft",
    title="PSOFT",
    paper="Wu et al. 2025, arXiv 2505.11235",
    recommended=Hyperparameters(
        rank=256,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (psoft, default)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=128,  # on the packaged model about as many parameters as LoRA of rank 8
    space=SearchSpace(rank=(32, 64, 128, 256), alpha=(), target_modules=(QUERY_VALUE, "all-linear")),
    rank_means="dimension of the principal subspace",
    build=_psoft_config,
    expected_parameters=lambda shapes, rank, options: len(shapes) * (rank * (rank - 1) // 2 + 2 * rank),
    witness=_check_principal_rotation,
    quantizable=False,
    rank_limit=narrowest,
)
