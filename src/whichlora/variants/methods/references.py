"""Declares the references for adapters: full fine-tuning and the untrained base model."""

from __future__ import annotations

from whichlora.variants.base import Hyperparameters, SearchSpace, Variant

FULL = Variant(
    name="full",
    title="full fine-tuning",
    paper="Taori et al. 2023 (Alpaca)",
    kind="full",
    recommended=Hyperparameters(
        learning_rate=2e-5,
        epochs=3,
        batch_size=128,
        warmup=0.03,
        scheduler="cosine",
        source="the Alpaca training script",
    ),
    matched_learning_rate=1e-4,
    matched_rank=None,
    space=SearchSpace(rank=(), alpha=()),
    changes_base=True,
    quantizable=False,
)

NONE = Variant(
    name="none",
    title="base model",
    paper="the base model, scored without training",
    kind="none",
    recommended=None,
    matched_learning_rate=None,
    matched_rank=None,
)
