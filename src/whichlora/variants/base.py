"""Defines `Variant`, the declaration of an adapter method: its sources, construction, and training checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from whichlora.variants.witness import Evidence

Shapes = Mapping[str, tuple[int, int]]
"""Maps the full names of adapted linear layers to (in_features, out_features)."""

BackwardPasses = Sequence[Callable[["nn.Module"], None]]
"""For each of some batches of training items, adds the gradient of its mean loss to the gradients of a model."""

LEARNING_RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
HIGH_LEARNING_RATES = (*LEARNING_RATES[3:], 1e-2, 2e-2)
"""For methods that scale or bound their update."""
POSITIVE = (1e-6, 1e6)
"""Range of settings that must be positive."""
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
"""Hyperparameters shared by all methods in PEFT's own comparison (method_comparison/MetaMathQA in its repository:
Llama-3.2-3B, 5,000 steps of 4 items, which is less than one epoch)."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The hyperparameters that an arm sets.

    Attributes:
        rank, alpha: None if the method has none.
        warmup: share of the optimiser steps, 0 to 1.
        target_modules: "all-linear" or a tuple of module names.
        source: publication or script that the values come from.
    """

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
    """The grid that a tuning study of the variant searches; the default is that of "Which LoRA?", Appendix D.

    A study adds the method's recommended and matched values. `options` maps method-specific settings to values.
    """

    rank: tuple[int, ...] = RANKS
    alpha: tuple[float, ...] = ALPHAS
    learning_rate: tuple[float, ...] = LEARNING_RATES
    epochs: tuple[int, ...] = (3,)
    target_modules: tuple[str | tuple[str, ...], ...] = ("all-linear",)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The settings from which a variant builds its PEFT configuration.

    `target_modules` are the full names of the adapted layers. Full names work for any choice of decoder blocks in every
    PEFT method, and exclude layers with the same short name elsewhere, such as in an image encoder. `shapes` are those
    of the adapted layers. `rank` is 0 for a method without a rank.
    """

    rank: int
    alpha: float | None
    dropout: float
    target_modules: tuple[str, ...]
    options: Mapping[str, Any]
    seed: int
    total_steps: int
    shapes: Shapes = field(default_factory=dict)

    def common(self) -> dict[str, Any]:
        """Return the arguments common to all PEFT configurations; `r` is omitted if the method has no rank."""
        rank = {"r": self.rank} if self.rank else {}
        return {**rank, "target_modules": list(self.target_modules), "task_type": "CAUSAL_LM"}


@dataclass(frozen=True, kw_only=True)
class FullSelection:
    """The layers whose weights are trained in full, and what they were chosen by.

    Attributes:
        names: full names of the layers.
        scores: measures of each candidate, by its full name; empty if nothing was measured.
    """

    names: tuple[str, ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The declaration of one adapter method; add it to the catalogue, or declare it as an entry point of a package.

    Variants are pickled by name: another process loads the declaration of that name, so a change made with
    `dataclasses.replace(variant, options=...)` is lost there. Per-run settings belong in the run's spec.

    Attributes:
        title: display name of the method.
        paper: citation of the paper.
        kind: "adapter" is built by PEFT, "full" trains all weights of the model, beside an adapter if there is `build`,
            "none" trains nothing.
        recommended: the values of the method's own source (paper or authors' code); None if nothing is trained.
        recommended_for: by task name, the values that the task's source gives for the method; they replace
            `recommended` on that task.
        matched_learning_rate: from the equal sweep on the packaged model (docs/learning-rates.md); None if
            the variant has not been in the sweep, in which case the arm `matched` requires a learning rate.
        matched_rank, matched_alpha: the values of the arm `matched`; they differ for a method whose rank has another
            meaning (VeRA, RandLoRA, a block size).
        rank_means: the meaning of the option `rank`.
        space: the grid that tuning searches.
        build: returns the PEFT configuration.
        expected_parameters: returns the number of trainable parameters of the adapter from (shapes, rank, options) by
            the method's formula, to be compared with the parameters that PEFT builds.
        witness: raises `ProofError` unless the trained model has the properties specific to the method.
        options: the method-specific settings and their default values; a value that a user sets has the type of the
            default.
        option_ranges: lowest and highest value of settings that are numbers; integers as bounds allow integers only.
        check_options: raises `OptionError` unless the settings fit the adapted layers, from (shapes, options).
        after_attach: modifies the model that PEFT returned, before its parameters are counted.
        fully_trained: chooses the layers whose weights are trained in full in place of getting an adapter (PEFT's
            `modules_to_save`), by full name, from (model, shapes of the adapted layers, settings, backward passes of
            the first training batches); None if every layer gets an adapter. `build` is given the other layers.
        prepare: computes from (model, PEFT configuration, backward passes and batches of the first training items) what
            PEFT needs in the model to initialise the adapter, before the adapter is attached.
        initialize: initialises the adapter from (model, first training batches, options).
        start_witness: raises `ProofError` unless the adapter is initialised as the method prescribes.
        optimizer: returns the optimiser for (model, learning rate, weight decay, options); None means AdamW.
        penalty: returns a term that the method adds to the cross-entropy loss.
        after_step: called with the number of finished optimiser steps, before gradients are cleared.
        write_record: writes files about the training to a folder, from the evidence, and returns metrics of the
            training by their names without `train/`; the run logs both.
        save: writes the trained model to a folder in a form that plain PEFT loads, or plain transformers for kind
            "full"; None means `save_pretrained`.
        method_state, restore_method_state: read and write the state that the method keeps outside its trainable
            tensors, so that training can resume from a checkpoint.
        may_select: returns whether the checkpoint after `step` of `total` steps may be selected as the best, from
            (step, total, options).
        changes_base: whether attaching the adapter modifies the base weights, so that the base must be reloaded.
        changes_input: whether its layers change the input of the base layer, so that several runs cannot share the base
            layer's output.
        converts_base_change: whether saving must convert the modification of the base into part of the adapter.
        quantizable: whether it can be trained on an NF4 base.
        mergeable: whether a weight can hold the trained adapter.
        reads_batch: whether an output depends on all tokens of the batch, padding and later tokens included.
        rank_limit: returns the largest rank for the given shapes.
        check_rank: returns a message that says what is allowed if a rank does not fit, from (rank, shapes, options).
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
    option_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    check_options: Callable[[Shapes, Mapping[str, Any]], None] | None = None
    after_attach: Callable[[nn.Module], None] | None = None
    fully_trained: Callable[[nn.Module, Shapes, AdapterSettings, BackwardPasses], FullSelection] | None = None
    prepare: Callable[[nn.Module, PeftConfig, BackwardPasses, Sequence[Mapping[str, Tensor]]], None] | None = None
    initialize: Callable[[nn.Module, Sequence[Mapping[str, Tensor]], Mapping[str, Any]], None] | None = None
    start_witness: Callable[[nn.Module, Evidence], None] | None = None
    optimizer: Callable[[nn.Module, float, float, Mapping[str, Any]], Optimizer] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    write_record: Callable[[Evidence, Path], Mapping[str, float]] | None = None
    save: Callable[[nn.Module, Path], None] | None = None
    method_state: Callable[[nn.Module], dict[str, Any]] | None = None
    restore_method_state: Callable[[nn.Module, dict[str, Any]], None] | None = None
    may_select: Callable[[int, int, Mapping[str, Any]], bool] | None = None
    changes_base: bool = False
    changes_input: bool = False
    converts_base_change: bool = False
    quantizable: bool = True
    mergeable: bool = True
    reads_batch: bool = False
    rank_limit: Callable[[Shapes], int] = lambda shapes: max(min(pair) for pair in shapes.values())
    check_rank: Callable[[int, Shapes, Mapping[str, Any]], str | None] | None = None

    @property
    def has_adapter(self) -> bool:
        """Whether the method is a PEFT adapter on a frozen base model."""
        return self.kind == "adapter"

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.kind != "none"

    @property
    def trains_whole_model(self) -> bool:
        """Whether all weights of the model are trained, so that a whole model is saved and not an adapter."""
        return self.kind == "full"

    @property
    def adapts_layers(self) -> bool:
        """Whether PEFT adapts chosen layers, on a frozen base model or beside trained weights."""
        return self.build is not None

    @property
    def has_rank(self) -> bool:
        """Whether the method has a rank hyperparameter."""
        return self.recommended is not None and self.recommended.rank is not None

    def rank_problem(self, rank: int, shapes: Shapes, options: Mapping[str, Any] | None = None) -> str | None:
        """Return None if the rank is valid for layers of these shapes, else a message that says what is allowed.

        `options` are the method's settings; the default is the declared ones.
        """
        limit = self.rank_limit(shapes)
        if rank > limit:
            return f"must be at most {limit}, the width of the adapted layers for {self.name}"
        return self.check_rank(rank, shapes, options or self.options) if self.check_rank else None

    @property
    def has_alpha(self) -> bool:
        """Whether the method scales its update by alpha / rank."""
        return self.recommended is not None and self.recommended.alpha is not None


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Return the number of parameters of a pair of rank-`rank` factors for each (in, out) shape."""
    return sum(rank * (n_in + n_out) for n_in, n_out in shapes)


def narrowest(shapes: Shapes) -> int:
    """Return the smallest width of the adapted layers: the rank limit of methods that decompose each weight."""
    return min(min(pair) for pair in shapes.values())


def narrowest_input(shapes: Shapes) -> int:
    """Return the smallest input width of the adapted layers."""
    return min(n_in for n_in, _ in shapes.values())


def common_divisor(shapes: Shapes) -> int:
    """Return the greatest common divisor of the widths of the adapted layers, inputs and outputs."""
    return math.gcd(*(width for pair in shapes.values() for width in pair))
