"""LoRA and its kin in bf16: conversions to 32 bits and back that PEFT makes and that can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from whichlora.models.adapter_layers import adapter_modules


def layers_with_needless_cast(model: Any) -> list[Any]:
    """Return the adapter layers that compute the same under autocast whether PEFT widens their inputs or not.

    All that have the switch do, as a test shows for every variant, but DoRA's, which takes norms in that precision, and
    those with dropout, whose factor of 1 / (1 - p) bf16 rounds.
    """
    layers = [module for _, module in adapter_modules(model) if hasattr(module, "cast_input_dtype_enabled")]
    return [layer for layer in layers if not getattr(layer, "lora_variant", None) and not has_dropout(layer)]


@contextmanager
def skip_input_cast(layers: Sequence[Any]) -> Iterator[None]:
    """Have layers take their inputs as they come, which PEFT widens to 32 bits and autocast then narrows again.

    To be used under autocast, in the backward pass too. PEFT has a context for this, which fails on layers of some
    methods and goes through the whole model each time.
    """
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.cast_input_dtype_enabled = True


def adapter_to_weight_dtype(model: Any) -> None:
    """Have the factors of plain LoRA in the precision of the weights beside them, for reading without autocast.

    PEFT keeps them in 32 bits and widens every input to that. The rounding is one of the update, by some thousandths of
    it; folded into bf16 weights the update would be rounded by some thousandths of the weights, which are far larger.
    Not for factors that are a difference of two adapters, as those of PiSSA are saved: each is many times as large as
    what they come to, which would be rounded by a tenth.
    """
    from peft.tuners.lora import Linear

    for _, module in adapter_modules(model):
        weight = module.get_base_layer().weight
        if type(module) is Linear and not module.lora_variant and weight.dtype == torch.bfloat16:
            module.lora_A.to(weight.dtype)
            module.lora_B.to(weight.dtype)


def has_dropout(layer: Any) -> bool:
    """Say whether a layer has dropout."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in layer.modules())
