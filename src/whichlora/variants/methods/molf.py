"""Declares MoLF and MoLF-Efficient: LoRA experts, beside trained or frozen weights, with routed optimiser updates.

The LoRA experts of a layer have one scale, and so are slices of one LoRA of the sum of their ranks: B A x is the sum of
the products of the slices.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.errors import OptionError, ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight, unwrap_peft
from whichlora.variants.base import (
    POSITIVE,
    AdapterSettings,
    Hyperparameters,
    Shapes,
    Variant,
    lora_parameters,
)
from whichlora.variants.methods.lora import lora_config
from whichlora.variants.witness import Evidence, check_base_unchanged, digest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from whichlora.variants.routing import Part

SCORES = ("epd", "pfn")
WEIGHT = "weight"
"""The name of the expert that is a layer's own weight and bias."""


def expert_ranks(rank: int, options: Mapping[str, Any]) -> list[int]:
    """Return the ranks of a layer's LoRA experts: `rank`, and of each further one a `rank_ratio`-th of the last."""
    return [max(1, round(float(rank / options["rank_ratio"] ** n))) for n in range(options["experts"])]


def experts_of(layer: Any, options: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Return the experts of an adapted layer by name: its weight and bias, if they are trained, then `lora_1`, ..."""
    from whichlora.variants.routing import Part

    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    own = [Part(p) for p in layer.base_layer.parameters() if p.requires_grad]
    experts, start = {WEIGHT: own} if own else {}, 0
    # The sum of the experts' ranks grows with the largest one, so this finds the rank that was set.
    ranks = next(r for n in range(1, len(down) + 1) if sum(r := expert_ranks(n, options)) == len(down))
    for number, rank in enumerate(ranks, 1):
        experts[f"lora_{number}"] = [Part(down, 0, start, rank), Part(up, 1, start, rank)]
        start += rank
    return experts


def _build(settings: AdapterSettings) -> Any:
    assert settings.alpha is not None
    total = sum(expert_ranks(settings.rank, settings.options))
    return lora_config(replace(settings, rank=total, alpha=settings.alpha / settings.rank * total))


def _parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    return lora_parameters(shapes.values(), sum(expert_ranks(rank, options)))


def _check_options(shapes: Shapes, options: Mapping[str, Any]) -> None:
    if options["score"] not in SCORES:
        raise OptionError("options", f"score={options['score']}", f"allowed are {', '.join(SCORES)}")


def _optimizer(
    model: nn.Module,
    rate: float,
    decay: float,
    options: Mapping[str, Any],
    *,
    full_rate: float = 1.0,
    lora_decay: float = 1.0,
) -> Optimizer:
    """Return the routed optimiser.

    Args:
        rate: learning rate of the LoRA experts; that of the weights is `full_rate` times as high.
        decay: weight decay of the weights; that of the LoRA experts is `lora_decay` times as high.
    """
    from whichlora.variants.routing import RoutedAdamW

    layers = dict(adapter_modules(model))
    factors = [p for layer in layers.values() for m in (layer.lora_A, layer.lora_B) for p in m.parameters()]
    of_lora = {id(p) for p in factors}
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in of_lora]
    groups = [
        {"params": factors, "lr": rate, "weight_decay": decay * lora_decay},
        {"params": [p for p in weights if p.ndim > 1], "lr": rate * full_rate, "weight_decay": decay},
        # Norms and biases do not decay.
        {"params": [p for p in weights if p.ndim < 2], "lr": rate * full_rate, "weight_decay": 0.0},
    ]
    return RoutedAdamW(
        [group for group in groups if group["params"]],
        {name: experts_of(layer, options) for name, layer in layers.items()},
        score=options["score"],
        topk=options["topk"],
    )


def _write_record(evidence: Evidence, folder: Path) -> dict[str, float]:
    from whichlora.variants.routing_record import write_record

    return write_record(evidence.optimizer, folder)


def _save_merged(model: nn.Module, folder: Path) -> None:
    """Save the whole model with the LoRA experts merged into its weights; the model is not changed."""
    base = unwrap_peft(model)
    state = {key.replace(".base_layer.", "."): value for key, value in base.state_dict().items() if ".lora_" not in key}
    for name, layer in adapter_modules(model):
        weights = merged_weight(layer)
        assert weights is not None
        state[f"{name}.weight"] = weights[1]
    base.save_pretrained(folder, state_dict=state)


def _check_routing(model: nn.Module, evidence: Evidence) -> None:
    """Check scale and ranks of the LoRA experts, the number of updates in a step, and that losers did not change.

    Warns of an expert that was never updated: by the scores alone all updates may go to one expert, for instance to the
    weights if LoRA's scale is small.

    Raises:
        ProofError: A layer has other experts or other numbers of updates, or an expert changed without an update.
    """
    import torch

    settings, optimizer = evidence.settings, evidence.optimizer
    expected = sum(expert_ranks(settings.rank, settings.options)), settings.alpha / settings.rank
    for name, layer in adapter_modules(model):
        built = layer.r["default"], layer.scaling["default"]
        if built[0] != expected[0] or not math.isclose(built[1], expected[1]):
            raise ProofError(f"{name} has LoRA experts with (sum of ranks, scale) {built} instead of {expected}")
    winners = torch.stack(optimizer.winners)
    most, topk = int(winners.sum(2).max()), min(settings.options["topk"], winners.shape[2])
    if most != topk:
        raise ProofError(f"{most} experts of a layer were updated in one step instead of {topk}")
    names = {id(p): name for name, p in model.named_parameters()}
    for (name, experts), row in zip(optimizer.modules.items(), winners.any(0).tolist(), strict=True):
        for (expert, parts), ever in zip(experts.items(), row, strict=True):
            if not ever and _has_changed(expert, parts, names, evidence):
                raise ProofError(f"the expert {expert} of {name} changed without an update")
    for expert, ever in zip(experts, winners.any(1).any(0).tolist(), strict=True):
        if not ever:
            warnings.warn(
                f"No update was routed to the expert {expert} of any layer in {len(winners)} steps. A larger alpha "
                "raises the scores of LoRA experts.",
                stacklevel=2,
            )


def _has_changed(expert: str, parts: Sequence[Part], names: Mapping[int, str], evidence: Evidence) -> bool:
    if expert == WEIGHT:
        return any(digest(part.parameter) != evidence.trainable[names[id(part.parameter)]] for part in parts)
    return bool(parts[-1].of(parts[-1].parameter.detach()).any())  # B is 0 at the start


def _check_frozen_and_routing(model: nn.Module, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    _check_routing(model, evidence)


_OPTIONS = {"score": "epd", "topk": 1, "rank_ratio": 4.0}
_RANGES = {"topk": (1, 9), "experts": (1, 8), "rank_ratio": (1.0, 1024.0)}
_RECOMMENDED = Hyperparameters(
    rank=128,
    alpha=round(32 * math.sqrt(128), 2),
    dropout=0.05,
    learning_rate=5e-5,
    epochs=2,
    batch_size=32,
    warmup=0.1,
    weight_decay=0.1,
    scheduler="cosine",
    source=(
        "the authors' README and defaults (Qwen2.5-1.5B on MedMCQA); their alpha is 32 and their scale, as in rsLoRA, "
        "32 / sqrt(128) = 2.83"
    ),
)

MOLF = Variant(
    name="molf",
    title="MoLF",
    paper="Tang et al. 2026, arXiv 2605.07111",
    kind="full",
    recommended=_RECOMMENDED,
    matched_learning_rate=None,
    rank_means="rank of the largest LoRA expert",
    options={**_OPTIONS, "experts": 1, "full_rate": 1.0, "lora_decay": 0.1},
    option_ranges={**_RANGES, "full_rate": POSITIVE, "lora_decay": (0.0, 1e6)},
    build=_build,
    expected_parameters=_parameters,
    check_options=_check_options,
    optimizer=lambda model, rate, decay, options: _optimizer(
        model, rate, decay, options, full_rate=options["full_rate"], lora_decay=options["lora_decay"]
    ),
    witness=_check_routing,
    write_record=_write_record,
    save=_save_merged,
    changes_base=True,
    quantizable=False,
)

MOLF_EFFICIENT = Variant(
    name="molf-efficient",
    title="MoLF-Efficient",
    paper="Tang et al. 2026, arXiv 2605.07111",
    recommended=replace(
        _RECOMMENDED,
        weight_decay=0.01,
        source=(
            "the authors' README of MoLF-Efficient (ranks 128 and 32) and defaults; their topk 2, with which nothing "
            "is routed, is 1 here, and both experts have the scale 2.83 of the larger one"
        ),
    ),
    matched_learning_rate=None,
    rank_means="rank of the largest LoRA expert",
    options={**_OPTIONS, "experts": 2},
    option_ranges=_RANGES,
    build=_build,
    expected_parameters=_parameters,
    check_options=_check_options,
    optimizer=_optimizer,
    witness=_check_frozen_and_routing,
    write_record=_write_record,
)
