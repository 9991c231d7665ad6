"""Declares LoHa and LoKr, whose updates are Hadamard and Kronecker products of small matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.base import (
    HIGH_LEARNING_RATES,
    PEFT_COMPARISON,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
    lora_parameters,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, first_layer


def _loha_config(settings: AdapterSettings) -> Any:
    from peft import LoHaConfig

    return LoHaConfig(alpha=settings.alpha, rank_dropout=settings.dropout, **settings.common())


def _check_product(model: Any, evidence: Evidence, form: str) -> None:
    import torch

    check_base_unchanged(model, evidence)
    name, module, weights = first_layer(model)
    assert weights is not None

    def factor(attribute: str) -> torch.Tensor:
        tensor: torch.Tensor = getattr(module, attribute)["default"].detach().cpu().float()
        return tensor

    if form == "hada":
        product = (factor("hada_w1_a") @ factor("hada_w1_b")) * (factor("hada_w2_a") @ factor("hada_w2_b"))
    else:
        whole = "default" in module.lokr_w2
        product = torch.kron(
            factor("lokr_w1"), factor("lokr_w2") if whole else factor("lokr_w2_a") @ factor("lokr_w2_b")
        )
    expected = product * evidence.settings.alpha / evidence.settings.rank
    change = weights[1] - weights[0]
    if not change.any() or not change.allclose(expected, atol=1e-5 * float(weights[0].abs().max())):
        raise ProofError(f"the update of {name} is not the product of its factors")


LOHA = Variant(
    name="loha",
    title="LoHa",
    paper="Hyeon-Woo et al. 2021, arXiv 2108.06098; LyCORIS, arXiv 2309.14859",
    recommended=Hyperparameters(
        rank=32,
        alpha=64,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (loha, rank32)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(target_modules=(QUERY_VALUE, "all-linear")),
    build=_loha_config,
    expected_parameters=lambda shapes, rank, options: 2 * lora_parameters(shapes.values(), rank),
    witness=lambda model, evidence: _check_product(model, evidence, "hada"),
    quantizable=False,
)


def _lokr_config(settings: AdapterSettings) -> Any:
    from peft import LoKrConfig

    return LoKrConfig(
        alpha=settings.alpha,
        rank_dropout=settings.dropout,
        decompose_factor=settings.options["factor"],
        **settings.common(),
    )


def _lokr_parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    from peft.tuners.lokr.layer import factorization

    total = 0
    for n_in, n_out in shapes.values():
        (out_blocks, out_size), (in_blocks, in_size) = (factorization(n, options["factor"]) for n in (n_out, n_in))
        # The second factor is decomposed into two matrices only if these are smaller than the factor itself.
        low_rank = rank < max(out_size, in_size) / 2
        total += out_blocks * in_blocks + (rank * (out_size + in_size) if low_rank else out_size * in_size)
    return total


LOKR = Variant(
    name="lokr",
    title="LoKr",
    paper="Yeh et al. 2023 (LyCORIS), arXiv 2309.14859",
    recommended=Hyperparameters(
        rank=32,
        alpha=64,
        learning_rate=3e-3,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (lokr, rank32-factor4-lr0.003)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(learning_rate=HIGH_LEARNING_RATES, target_modules=(QUERY_VALUE, "all-linear")),
    options={"factor": 4},
    option_ranges={"factor": (1, 65536)},
    rank_means="rank of the second Kronecker factor",
    build=_lokr_config,
    expected_parameters=_lokr_parameters,
    witness=lambda model, evidence: _check_product(model, evidence, "lokr"),
    quantizable=False,
)
