"""What a variant is: a declaration of an adapter method, its sources, and how to tell that it really trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from whichlora.proof import Evidence

Shapes = Mapping[str, tuple[int, int]]
"""Adapted linear layers by full name, as (in_features, out_features)."""

LEARNING_RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
RANKS = (4, 8, 16, 32)
ALPHAS = (4, 8, 16, 32)
LLAMA_ATTENTION_MLP = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


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
    """The grid a study of the variant searches. The default is that of "Which LoRA?", Appendix D."""

    rank: tuple[int, ...] = RANKS
    alpha: tuple[float, ...] = ALPHAS
    learning_rate: tuple[float, ...] = LEARNING_RATES
    epochs: tuple[int, ...] = (3,)
    target_modules: tuple[str | tuple[str, ...], ...] = ("all-linear",)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What a variant needs to build its PEFT configuration.

    `target_modules` are the full names of the adapted layers, by which every PEFT method takes any choice of decoder
    blocks and leaves alone layers of the same name elsewhere, as in an image encoder.
    """

    rank: int
    alpha: float | None
    dropout: float
    target_modules: tuple[str, ...]
    options: Mapping[str, Any]
    seed: int
    total_steps: int

    def common(self) -> dict[str, Any]:
        """Return the arguments that every PEFT configuration shares."""
        return {
            "r": self.rank,
            "target_modules": list(self.target_modules),
            "task_type": "CAUSAL_LM",
        }


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One adapter method. Adding a variant is adding one such declaration to the catalogue.

    Attributes:
        kind: "adapter" is built by PEFT, "full" trains the model itself, "none" trains nothing.
        recommended: the values of the method's own source.
        matched_learning_rate: from the equal sweep on the packaged model (docs/learning-rates.md).
        matched_rank: what the arm `matched` uses; VeRA keeps its own.
        build: makes the PEFT configuration.
        expected_parameters: counts the trainable parameters from the adapted shapes, by the method's own formula.
        witness: raises `ProofError` unless the trained model shows what is particular to the method.
        options: the method's own settings and their values.
        fully_trained: modules trained in full beside the adapter (PEFT's `modules_to_save`).
        optimizer: makes the optimiser from (model, learning rate, weight decay); None is AdamW.
        penalty: a term of the method's objective beside the cross-entropy.
        after_step: called with the number of finished optimiser steps before gradients are cleared.
        method_state, restore_method_state: read and write what the method keeps outside its trainable tensors, so
            that a checkpoint can go on from it.
        may_select: whether a checkpoint after `step` of `total` steps may be the one that is kept.
        changes_base: whether attaching it alters the base weights, so that the base must be loaded anew.
        converts_base_change: whether saving must express that alteration as part of the adapter.
        quantizable: whether it trains on an NF4 base.
        rank_limit: the greatest rank on these shapes.
    """

    name: str
    title: str
    paper: str
    kind: Literal["adapter", "full", "none"] = "adapter"
    recommended: Hyperparameters | None
    matched_learning_rate: float | None
    matched_rank: int | None = 8
    space: SearchSpace = field(default_factory=SearchSpace)
    build: Callable[[AdapterSettings], PeftConfig] | None = None
    expected_parameters: Callable[[Shapes, int, Mapping[str, Any]], int] | None = None
    witness: Callable[[nn.Module, Evidence], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fully_trained: tuple[str, ...] = ()
    optimizer: Callable[[nn.Module, float, float], Optimizer] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    method_state: Callable[[nn.Module], dict[str, Any]] | None = None
    restore_method_state: Callable[[nn.Module, dict[str, Any]], None] | None = None
    may_select: Callable[[int, int, Mapping[str, Any]], bool] | None = None
    changes_base: bool = False
    converts_base_change: bool = False
    quantizable: bool = True
    rank_limit: Callable[[Shapes], int] = lambda shapes: max(min(pair) for pair in shapes.values())

    def __reduce__(self) -> tuple[Callable[[str], Variant], tuple[str]]:
        """Travel to other processes by name: what a declaration holds cannot be pickled."""
        from whichlora.variants import get_variant

        return get_variant, (self.name,)

    @property
    def has_alpha(self) -> bool:
        """Whether the method scales its update by alpha over the rank."""
        return self.recommended is not None and self.recommended.alpha is not None


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Parameters of two matrices of `rank` for each (in, out) shape."""
    return sum(rank * (n_in + n_out) for n_in, n_out in shapes)
