"""Keeps the base model that was last used, so that a grid of runs loads it once a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels import fast_paths
from whichlora.models.loading import copy_around_weights, load_model
from whichlora.parallel import lockstep
from whichlora.training import adapter
from whichlora.training.micro_batches import set_checkpointing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from whichlora.config.plan import Plan

_kept: dict[tuple[str, str, str], PreTrainedModel] = {}


def checkout(plan: Plan, *, precision: str | None = None) -> PreTrainedModel:
    """Return the plain base model of a plan, the caller's alone until it is given back with `keep`.

    In a convoy the runs have their own modules around the same weights, which none of them changes for longer than it
    has the turn.
    """
    key = _key(plan, precision)
    model = _kept.pop(key, None)
    _kept.clear()  # before another is loaded: two may not fit
    if model is None:
        model = load_model(plan.source, precision=key[1], quantization=key[2])
    if lockstep.active():
        _kept[key] = model
        return copy_around_weights(model)
    return model


def give_back(model: PreTrainedModel, plan: Plan) -> None:
    """Give back a base model whose weights are what they were, in the plan's precision."""
    set_checkpointing(model, on=False)  # which was turned on if memory ran out with the adapter
    _kept.clear()
    _kept[_key(plan)] = model.eval()


def give_back_trained(model: Any, plan: Plan) -> None:
    """Give back the base under an adapter that was trained, if nothing changed it."""
    if plan.variant.has_adapter and not (plan.variant.changes_base or plan.variant.fully_trained):
        give_back(model.unload(), plan)


@contextmanager
def with_saved_adapter(plan: Plan, folder: Path) -> Iterator[Any]:
    """Give the plain base with the adapter of `folder`, for scoring.

    Where that changes no answers the adapter is folded into the weights, which saves time; they are put back after.
    """
    if plan.variant.trains_whole_model:
        yield adapter.load_saved(plan, folder, base=None)
        return
    model = adapter.load_saved(plan, folder, base=checkout(plan))
    if plan.spec.precision == "fp32" and plan.spec.quantization == "none":
        layers = [module.get_base_layer() for _, module in adapter_modules(model)]
        before = [{key: tensor.clone() for key, tensor in layer.state_dict().items()} for layer in layers]
        try:
            base = model.merge_and_unload()
            yield base
        finally:  # others of a convoy have the same weights
            for layer, tensors in zip(layers, before, strict=True):
                layer.load_state_dict(tensors)
    else:
        with fast_paths.scoring(model, narrow=not plan.variant.converts_base_change):
            yield model
        base = model.unload()
    if not plan.variant.fully_trained:
        give_back(base, plan)


def _key(plan: Plan, precision: str | None = None) -> tuple[str, str, str]:
    return plan.source.digest, precision or plan.spec.precision, plan.spec.quantization
