"""Finds the layers that PEFT wrapped, their trained weights, and the transformers model inside a PEFT model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def full_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name in the base model, module) for every layer that PEFT trains in full beside an adapter.

    The module holds the base layer, `original_module`, and its trained copy.
    """
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield name.removeprefix("base_model.model."), module


def trained_copy(module: Any) -> Any:
    """Return the trained copy of the base layer in one of the `full_modules`."""
    return module.modules_to_save[module.active_adapter]


def trained_modules(model: nn.Module) -> list[tuple[str, Any]]:
    """Return (name in the base model, module) of `adapter_modules` and `full_modules`, in the order of the model."""
    found = {id(module) for modules in (adapter_modules(model), full_modules(model)) for _, module in modules}
    return [
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if id(module) in found
    ]


def unload(model: Any) -> Any:
    """Return the base model of a PEFT model, without the adapter.

    PEFT's own method leaves the trained copies of `full_modules` in it.
    """
    base_layers = {name: module.original_module for name, module in full_modules(model)}
    base = model.unload()
    put_back(base, base_layers)
    return base


def put_back(base: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put layers, by their names, into a model in place of those that are there."""
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, layer)


def merged_weight(module: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor] | None:
    """Return a layer's weight before and after training, with the adapter merged, on the CPU, both (out, in).

    `dtype` is fp32 by default. Returns None for a 4-bit base, where merging is not exact. The module, one of the
    `trained_modules`, is not changed.
    """
    import copy

    import torch

    if hasattr(module, "modules_to_save"):
        weights = (module.original_module.weight, trained_copy(module).weight)
        before, after = (weight.detach().cpu().to(dtype or torch.float32) for weight in weights)
        return before, after
    if not module.base_layer.weight.is_floating_point():
        return None
    copied = copy.deepcopy(module).cpu().to(dtype or torch.float32)
    before = copied.base_layer.weight.detach().clone()
    copied.merge()
    return before, copied.base_layer.weight.detach()
