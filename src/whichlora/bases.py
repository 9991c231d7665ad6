"""Keeps the base model that was last used, so that a grid of runs loads it once a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from whichlora import adapters, models
from whichlora.proof import adapter_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from whichlora.resolve import Plan

_kept: dict[tuple[str, str, str], PreTrainedModel] = {}


def take(plan: Plan, *, precision: str | None = None) -> PreTrainedModel:
    """Return the plain base model of a plan, the caller's alone until it is given back with `keep`."""
    key = _key(plan, precision)
    model = _kept.pop(key, None)
    _kept.clear()  # before another is loaded: two may not fit
    if model is None:
        model = models.load_model(plan.source, precision=key[1], quantization=key[2])
    return model


def keep(model: PreTrainedModel, plan: Plan, *, precision: str | None = None) -> None:
    """Give back a base model whose weights are what they were."""
    if model.is_gradient_checkpointing:  # memory ran out with the adapter
        model.gradient_checkpointing_disable()
    _kept.clear()
    _kept[_key(plan, precision)] = model.eval()


def keep_without_adapter(model: Any, plan: Plan) -> None:
    """Take the adapter off a model that was trained or reloaded, and give the base back if nothing changed it."""
    changed = plan.variant.changes_base or plan.variant.fully_trained
    if plan.variant.kind == "adapter" and not changed:
        keep(model.unload(), plan)


@contextmanager
def reloaded(plan: Plan, folder: Path) -> Iterator[Any]:
    """Give the plain base with the adapter of `folder`, for scoring.

    Where that changes no answers the adapter is folded into the weights, which saves time; they are put back after.
    """
    if plan.variant.kind == "full":
        yield adapters.reload(plan, folder, base=None)
        return
    model = adapters.reload(plan, folder, base=take(plan))
    if plan.spec.precision != "fp32" or plan.spec.quantization != "none":
        yield model
        if not plan.variant.fully_trained:
            keep(model.unload(), plan)
        return
    before = {
        name: {key: tensor.clone() for key, tensor in module.get_base_layer().state_dict().items()}
        for name, module in adapter_modules(model)
    }
    model = model.merge_and_unload()
    yield model
    with torch.no_grad():
        for name, tensors in before.items():
            model.get_submodule(name).load_state_dict(tensors)
    if not plan.variant.fully_trained:
        keep(model, plan)


def _key(plan: Plan, precision: str | None) -> tuple[str, str, str]:
    return plan.source.digest, precision or plan.spec.precision, plan.spec.quantization
