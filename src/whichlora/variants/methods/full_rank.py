"""Declares RandLoRA, C3A and FRoD, whose updates have full rank: random bases, circulant blocks, a shared basis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.base import (
    LLAMA_ATTENTION_MLP,
    PEFT_COMPARISON,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
    common_divisor,
    narrowest,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, check_changed, check_shared, first_layer


def _randlora_config(settings: AdapterSettings) -> Any:
    from peft import RandLoraConfig

    # The bases are drawn from the run's seed and saved, for the reasons given in vera.py.
    return RandLoraConfig(
        randlora_alpha=settings.alpha,
        randlora_dropout=settings.dropout,
        projection_prng_key=settings.seed,
        save_projection=True,
        **settings.common(),
    )


def _randlora_parameters(shapes: Shapes, rank: int, options: Any) -> int:
    narrow = [min(pair) for pair in shapes.values()]
    return sum(math.ceil(width / rank) * (rank + width) for width in narrow)


def _check_full_rank(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    check_shared(model, "randlora_A", "randlora_B")
    name, _, weights = first_layer(model)
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
    build=_randlora_config,
    expected_parameters=_randlora_parameters,
    witness=_check_full_rank,
    rank_limit=narrowest,
)


def _c3a_config(settings: AdapterSettings) -> Any:
    from peft import C3AConfig

    common = settings.common()
    return C3AConfig(block_size=common.pop("r"), **common)


def _check_circulant(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "c3a_kernel")
    name, _, weights = first_layer(model)
    if weights is None:
        return
    size = evidence.settings.rank
    block = (weights[1] - weights[0])[:size, :size]
    if not block[1:, 1:].allclose(block[:-1, :-1], atol=1e-5 * float(weights[0].abs().max())):
        raise ProofError(f"the blocks of the update of {name} are not circulant")


def _check_circulant_size(rank: int, shapes: Shapes, options: Any) -> str | None:
    widest = common_divisor(shapes)
    if widest % rank == 0:
        return None
    sizes = ", ".join(str(size) for size in range(1, widest + 1) if widest % size == 0)
    return f"c3a's block size must divide both sides of every adapted layer; allowed are {sizes}"


C3A = Variant(
    name="c3a",
    title="C3A",
    paper="Chen et al. 2024, arXiv 2407.19342",
    recommended=Hyperparameters(
        rank=64,
        learning_rate=3e-1,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (c3a, default)",
        **{**PEFT_COMPARISON, "weight_decay": 1e-5},
    ),
    matched_learning_rate=None,
    matched_rank=64,
    space=SearchSpace(
        rank=(16, 32, 64),
        alpha=(),
        learning_rate=(1e-2, 3e-2, 1e-1, 3e-1, 1.0),
        target_modules=(QUERY_VALUE, "all-linear"),
    ),
    rank_means="size of the circulant blocks; a larger one has fewer parameters",
    build=_c3a_config,
    expected_parameters=lambda shapes, rank, options: sum(n_in * n_out // rank for n_in, n_out in shapes.values()),
    witness=_check_circulant,
    rank_limit=common_divisor,
    check_rank=_check_circulant_size,
)


def _frod_config(settings: AdapterSettings) -> Any:
    from peft import FrodConfig

    # The shared basis is saved: it is made of eigenvectors, whose signs differ between linear-algebra libraries.
    return FrodConfig(
        frod_dropout=settings.dropout,
        sparse_rate=settings.options["sparse_rate"],
        projection_prng_key=settings.seed,
        save_projection=True,
        progressbar=False,
        **settings.common(),
    )


def _frod_parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    def off_diagonal(width: int) -> int:
        return min(max(1, int(width * width * options["sparse_rate"])), width * (width - 1))

    return sum(n_in + off_diagonal(n_in) for n_in, _ in shapes.values())


def _check_shared_basis(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "frod_lambda_l")
    check_changed(model, evidence, "frod_lambda_s_values")
    name, module, weights = first_layer(model)
    assert weights is not None
    inner = torch.diag(module.frod_lambda_l["default"].detach().cpu().float())
    rows, columns = module.frod_s_indices["default"]
    inner[rows, columns] += module.frod_lambda_s_values["default"].detach().cpu().float()
    left, basis = (part["default"].cpu().float() for part in (module.frod_U, module.frod_V))
    if not weights[1].allclose(left @ inner @ basis.T, atol=1e-3 * float(weights[0].abs().max())):
        raise ProofError(f"the weight of {name} is not its sparse matrix in the shared basis")


FROD = Variant(
    name="frod",
    title="FRoD",
    paper="Wan et al. 2025, arXiv 2512.23485",
    recommended=Hyperparameters(
        learning_rate=1e-3,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (frod, sparse0.02-lr_0.001)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=None,
    space=SearchSpace(
        rank=(),
        alpha=(),
        target_modules=(QUERY_VALUE, "all-linear"),
        options={"sparse_rate": (0.01, 0.02)},
    ),
    options={"sparse_rate": 0.02},
    option_ranges={"sparse_rate": (1e-6, 1.0)},
    build=_frod_config,
    expected_parameters=_frod_parameters,
    witness=_check_shared_basis,
    quantizable=False,
)
