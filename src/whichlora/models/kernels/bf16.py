"""bf16 training and scoring without PEFT's redundant dtype conversions.

PEFT keeps adapter weights in fp32 and casts every layer's input to that dtype. Under autocast to bf16 the matrix
product casts the input back at once: widening a bf16 tensor to fp32 and narrowing it again is exact, so
`skip_input_cast` leaves out both casts and the results are bit for bit the same. The flag it sets,
`cast_input_dtype_enabled`, is the one of PEFT's own context manager `disable_input_dtype_casting`.

For scoring without autocast, `adapter_to_weight_dtype` rounds the factors of plain LoRA to the dtype of the base
weights. That changes the result, by no more than computing in bf16 does anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from whichlora.models.adapter_layers import adapter_modules


def layers_with_needless_cast(model: Any) -> list[Any]:
    """Return the adapter layers whose results under autocast do not depend on PEFT's input cast.

    These are all layers that have the flag `cast_input_dtype_enabled` (a test checks every variant), except DoRA's,
    which compute weight norms in the dtype of the input, and those with dropout, whose factor 1 / (1 - p) bf16 rounds.
    """
    layers = [module for _, module in adapter_modules(model) if hasattr(module, "cast_input_dtype_enabled")]
    return [layer for layer in layers if not getattr(layer, "lora_variant", None) and not has_dropout(layer)]


@contextmanager
def skip_input_cast(layers: Sequence[Any]) -> Iterator[None]:
    """Prevent layers from casting their inputs to the adapter's dtype, fp32, which autocast would undo.

    Use it under autocast; the context must include the backward pass. PEFT's own context manager fails on the
    layers of some methods and iterates over the whole model on each entry.
    """
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.cast_input_dtype_enabled = True


def adapter_to_weight_dtype(model: Any) -> None:
    """Cast the factors of plain LoRA layers to the dtype of bf16 base weights, in place, for scoring without autocast.

    PEFT keeps the factors in fp32 and casts every input to it. Rounding the factors changes the update by a few
    thousandths of its size; merging the update into bf16 weights would round it by a few thousandths of the weights,
    which are far larger. Do not use it for adapters stored as a difference of two (PiSSA): the factors nearly cancel,
    so bf16 rounding would be about 10 % of the update.
    """
    from peft.tuners.lora import Linear

    for _, module in adapter_modules(model):
        weight = module.get_base_layer().weight
        if type(module) is Linear and not module.lora_variant and weight.dtype == torch.bfloat16:
            module.lora_A.to(weight.dtype)
            module.lora_B.to(weight.dtype)


def compute_in_input_dtype(layer: torch.nn.Linear) -> None:
    """Let a linear layer with fp32 weights read inputs of another dtype, by rounding the weights to that dtype.

    A layer that is trained in full on a bf16 base is then scored, without autocast, as it will be after it has been
    saved and loaded in bf16.
    """
    layer.forward = partial(_forward_in_input_dtype, layer)  # type: ignore[method-assign]


def _forward_in_input_dtype(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    if x.dtype == layer.weight.dtype or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return torch.nn.functional.linear(x, layer.weight.to(x.dtype), bias)


def has_dropout(layer: Any) -> bool:
    """Return whether a layer applies dropout."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in layer.modules())
