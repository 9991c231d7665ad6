"""Declares MiSS: the update of each layer is one trained matrix, repeated side by side."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.variants.base import (
    LEARNING_RATES,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
    narrowest_input,
)
from whichlora.variants.witness import Evidence, check_base_unchanged


def _build(settings: AdapterSettings) -> Any:
    from peft import MissConfig

    return MissConfig(miss_dropout=settings.dropout, **settings.common())


def _check_shards(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    rank = evidence.settings.rank
    for name, module in adapter_modules(model):
        shape = tuple(module.miss_block["default"].shape)
        if shape != (rank, module.out_features):
            raise ProofError(f"the block of {name} has shape {shape} instead of {(rank, module.out_features)}")
    weights = merged_weight(module)
    if weights is not None:
        change = weights[1] - weights[0]
        width = min(rank, change.shape[1] - rank)
        if not change[:, :width].allclose(change[:, rank : rank + width], atol=1e-4 * float(change.abs().max())):
            raise ProofError(f"the shards of {name} do not share one block")


MISS = Variant(
    name="miss",
    title="MiSS",
    paper="Kang and Yin 2024, arXiv 2409.15371",
    recommended=Hyperparameters(
        rank=64,
        learning_rate=2e-5,
        epochs=1,
        batch_size=64,
        warmup=0.0,
        scheduler="cosine",
        source="the paper's appendix B (Llama 2 7B on MetaMathQA and CodeFeedback)",
    ),
    matched_learning_rate=None,
    space=SearchSpace(rank=(16, 32, 64, 128), alpha=(), learning_rate=(1e-5, *LEARNING_RATES)),
    rank_means="inputs per shard",
    build=_build,
    expected_parameters=lambda shapes, rank, options: sum(rank * n_out for _, n_out in shapes.values()),
    witness=_check_shards,
    rank_limit=narrowest_input,
)
