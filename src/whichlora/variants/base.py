"""What a variant is: a declaration of an adapter method, its sources, and how to tell that it really trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from whichlora.variants.witness import Evidence

Shapes = Mapping[str, tuple[int, int]]
"""Adapted linear layers by full name, as (in_features, out_features)."""

LEARNING_RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
HIGH_LEARNING_RATES = (*LEARNING_RATES[3:], 1e-2, 2e-2)
"""For methods that scale or bound what they train."""
RANKS = (4, 8, 16, 32)
ALPHAS = (4, 8, 16, 32)
LLAMA_ATTENTION_MLP = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
QUERY_VALUE = ("q_proj", "v_proj")

PEFT_COMPARISON: Mapping[str, Any] = {
    "epochs": 1,
    "batch_size": 4,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "scheduler": "cosine",
}
"""What the methods share in PEFT's own comparison (its repository, method_comparison/MetaMathQA: Llama-3.2-3B, 5,000
steps of 4 items, which is less than one epoch). A variant that takes its values from there gives the rest."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Values for every choice that an arm makes. `target_modules` is "all-linear" or module names."""

    rank: int | None = None
    alpha: float | None = None
    dropout: float = 0.0
    learning_rate: float
    epochs: int
    batch_size: int
    warmup: float
    weight_decay: float = 0.0
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    target_modules: str | tuple[str, ...] = "all-linear"
    source: str


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The grid a study of the variant searches. The default is that of "Which LoRA?", Appendix D.

    A study adds the method's recommended and matched values. `options` are values of the method's own settings.
    """

    rank: tuple[int, ...] = RANKS
    alpha: tuple[float, ...] = ALPHAS
    learning_rate: tuple[float, ...] = LEARNING_RATES
    epochs: tuple[int, ...] = (3,)
    target_modules: tuple[str | tuple[str, ...], ...] = ("all-linear",)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What a variant needs to build its PEFT configuration.

    `target_modules` are the full names of the adapted layers, by which every PEFT method takes any choice of decoder
    blocks and leaves alone layers of the same name elsewhere, as in an image encoder. `rank` is 0 where the method
    has none.
    """

    rank: int
    alpha: float | None
    dropout: float
    target_modules: tuple[str, ...]
    options: Mapping[str, Any]
    seed: int
    total_steps: int

    def common(self) -> dict[str, Any]:
        """Return the arguments that every PEFT configuration shares; `r` is left out where there is no rank."""
        rank = {"r": self.rank} if self.rank else {}
        return {**rank, "target_modules": list(self.target_modules), "task_type": "CAUSAL_LM"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One adapter method. Adding a variant is adding one such declaration to the catalogue.

    Attributes:
        kind: "adapter" is built by PEFT, "full" trains the model itself, "none" trains nothing.
        recommended: the values of the method's own source.
        recommended_for: by task, the values of the task's source where it has some for the method, in their place.
        matched_learning_rate: from the equal sweep on the packaged model (docs/learning-rates.md); None as long as
            the variant has not been in it, and the arm `matched` then asks for a learning rate.
        matched_rank, matched_alpha: what the arm `matched` uses; where the rank counts something else (VeRA,
            RandLoRA, a block size), the method's own.
        rank_means: what the option `rank` sets.
        build: makes the PEFT configuration.
        expected_parameters: counts the trainable parameters from the adapted shapes, by the method's own formula.
        witness: raises `ProofError` unless the trained model shows what is particular to the method.
        options: the method's own settings and their values.
        after_attach: mends what PEFT made of the model, before anything is counted.
        fully_trained: modules trained in full beside the adapter (PEFT's `modules_to_save`).
        initialize: sets the adapter's start from (model, first training batches, options).
        start_witness: raises `ProofError` unless the adapter starts as the method says.
        optimizer: makes the optimiser from (model, learning rate, weight decay, options); None is AdamW.
        penalty: a term of the method's objective beside the cross-entropy.
        after_step: called with the number of finished optimiser steps before gradients are cleared.
        method_state, restore_method_state: read and write what the method keeps outside its trainable tensors, so
            that a checkpoint can go on from it.
        may_select: whether a checkpoint after `step` of `total` steps may be the one that is kept.
        changes_base: whether attaching it alters the base weights, so that the base must be loaded anew.
        converts_base_change: whether saving must express that alteration as part of the adapter.
        quantizable: whether it trains on an NF4 base.
        rank_limit: the greatest rank on these shapes.
        check_rank: says what is allowed if a rank does not fit these shapes, from (rank, shapes, options).
    """

    name: str
    title: str
    paper: str
    kind: Literal["adapter", "full", "none"] = "adapter"
    recommended: Hyperparameters | None
    recommended_for: Mapping[str, Hyperparameters] = field(default_factory=dict)
    matched_learning_rate: float | None
    matched_rank: int | None = 8
    matched_alpha: float = 16
    rank_means: str = "rank of the update"
    space: SearchSpace = field(default_factory=SearchSpace)
    build: Callable[[AdapterSettings], PeftConfig] | None = None
    expected_parameters: Callable[[Shapes, int, Mapping[str, Any]], int] | None = None
    witness: Callable[[nn.Module, Evidence], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    after_attach: Callable[[nn.Module], None] | None = None
    fully_trained: tuple[str, ...] = ()
    initialize: Callable[[nn.Module, Sequence[Mapping[str, Tensor]], Mapping[str, Any]], None] | None = None
    start_witness: Callable[[nn.Module, Evidence], None] | None = None
    optimizer: Callable[[nn.Module, float, float, Mapping[str, Any]], Optimizer] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    method_state: Callable[[nn.Module], dict[str, Any]] | None = None
    restore_method_state: Callable[[nn.Module, dict[str, Any]], None] | None = None
    may_select: Callable[[int, int, Mapping[str, Any]], bool] | None = None
    changes_base: bool = False
    converts_base_change: bool = False
    quantizable: bool = True
    rank_limit: Callable[[Shapes], int] = lambda shapes: max(min(pair) for pair in shapes.values())
    check_rank: Callable[[int, Shapes, Mapping[str, Any]], str | None] | None = None

    @property
    def has_adapter(self) -> bool:
        """Whether PEFT builds an adapter, and the base model stays frozen."""
        return self.kind == "adapter"

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.kind != "none"

    @property
    def trains_whole_model(self) -> bool:
        """Whether the model itself is trained, without an adapter."""
        return self.kind == "full"

    @property
    def has_rank(self) -> bool:
        """Whether the method has a rank to choose."""
        return self.recommended is not None and self.recommended.rank is not None

    def rank_problem(self, rank: int, shapes: Shapes, options: Mapping[str, Any] | None = None) -> str | None:
        """Return what is allowed if a rank does not fit these shapes; `options` are the variant's own by default."""
        limit = self.rank_limit(shapes)
        if rank > limit:
            return f"must be at most {limit}, the width of the adapted layers for {self.name}"
        return self.check_rank(rank, shapes, options or self.options) if self.check_rank else None

    @property
    def has_alpha(self) -> bool:
        """Whether the method scales its update by alpha over the rank."""
        return self.recommended is not None and self.recommended.alpha is not None


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Parameters of two matrices of `rank` for each (in, out) shape."""
    return sum(rank * (n_in + n_out) for n_in, n_out in shapes)


def narrowest(shapes: Shapes) -> int:
    """The least width of the adapted layers, as the greatest rank of what takes part of each weight away."""
    return min(min(pair) for pair in shapes.values())


def narrowest_input(shapes: Shapes) -> int:
    """The least input width of the adapted layers."""
    return min(n_in for n_in, _ in shapes.values())
