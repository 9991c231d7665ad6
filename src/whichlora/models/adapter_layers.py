"""Finds the layers that PEFT wrapped, their merged weights, and the transformers model inside a PEFT model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def unwrap_peft(model: Any) -> Any:
    """Return the transformers model inside a PEFT model, with the adapter in its layers, and other models unchanged."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def adapter_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name in the base model, module) for every layer that PEFT wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name.removeprefix("base_model.model."), module


def merged_weight(module: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor] | None:
    """Return an adapted layer's weight before and after merging the adapter, on the CPU, both (out, in).

    `dtype` is fp32 by default. Returns None for a 4-bit base, where merging is not exact. The module is not changed.
    """
    import copy

    import torch

    if not module.base_layer.weight.is_floating_point():
        return None
    copied = copy.deepcopy(module).cpu().to(dtype or torch.float32)
    before = copied.base_layer.weight.detach().clone()
    copied.merge()
    return before, copied.base_layer.weight.detach()
