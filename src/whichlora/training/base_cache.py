"""Caches the most recently used base model, so that a grid of runs loads it once per process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from whichlora.announcements import announce
from whichlora.config.plan import Plan
from whichlora.models.adapter_layers import adapter_modules, full_modules, put_back, unload, unwrap_peft
from whichlora.models.kernels import fast_paths
from whichlora.models.loading import copy_sharing_weights, load_model
from whichlora.parallel import distributed, lockstep
from whichlora.training import adapter
from whichlora.training.micro_batches import set_checkpointing

_cache: dict[tuple[str, str, str], PreTrainedModel] = {}
"""The cached model, if any, by digest, precision and quantization."""


def checkout(plan: Plan, *, precision: str | None = None) -> PreTrainedModel:
    """Return the base model of a plan, without adapter, for exclusive use until it is returned with `give_back`.

    In lockstep mode the runs share the weights through separate module trees; a run may change weights only within its
    turn, and must restore them before the turn ends.
    """
    key = _key(plan, precision)
    model = _cache.pop(key, None)
    _cache.clear()  # before another model is loaded: two may not fit into memory
    if model is None:
        if distributed.rank() == 0:
            announce(f"Loading the model {plan.source.name}.")
        model = load_model(plan.source, precision=key[1], quantization=key[2])
    if lockstep.active():
        _cache[key] = model
        return copy_sharing_weights(model)
    return model


def give_back(model: PreTrainedModel, plan: Plan) -> None:
    """Return a base model to the cache; its weights must be unchanged and in the plan's precision."""
    set_checkpointing(model, on=False)  # training turns it on when memory runs out
    _cache.clear()
    _cache[_key(plan)] = model.eval()


def give_back_trained(model: Any, plan: Plan) -> None:
    """Return the base model of a trained adapter to the cache, if training left its weights unchanged."""
    if plan.variant.has_adapter and not plan.variant.changes_base:
        give_back(unload(model), plan)


class Measure(Protocol):
    """Measures a model that is loaded for scoring; it must not change it."""

    def __call__(self, model: Any, *, merged: bool) -> None: ...


@contextmanager
def saved_model(plan: Plan, folder: Path, *, measure: Measure | None = None) -> Iterator[Any]:
    """Yield the model saved in `folder`, for scoring: the base model with the adapter; for `full`, the trained model.

    In unquantized fp32, where merging does not change the predictions, an adapter that a weight can hold is merged for
    speed; the base weights are restored on exit.

    Args:
        measure: called with the model as any PEFT user would load it, and with the model that has no adapter layers
            once the adapter is merged. In bf16 nothing is merged, but such a model is the base in everything but the
            values of its weights. There is none for 4-bit weights, to which no adapter can be added exactly, and for
            variants whose adapter no weight can hold.
    """
    announce("Reloading the saved adapter.")
    measure = measure or _measure_nothing
    if plan.variant.trains_whole_model:
        model = adapter.load_saved(plan, folder, base=None)
        measure(model, merged=False)
        yield model
        return
    model = adapter.load_saved(plan, folder, base=checkout(plan))
    measure(model, merged=False)
    if plan.spec.precision == "fp32" and plan.spec.quantization == "none" and plan.variant.mergeable:
        base = unwrap_peft(model)
        full = {name: module.original_module for name, module in full_modules(model)}
        layers = [module.get_base_layer() for _, module in adapter_modules(model)]
        before = [{key: tensor.clone() for key, tensor in layer.state_dict().items()} for layer in layers]
        try:
            merged = model.merge_and_unload()
            measure(merged, merged=True)
            yield merged
        finally:  # other runs in lockstep share these weights
            for layer, tensors in zip(layers, before, strict=True):
                layer.load_state_dict(tensors)
            put_back(base, full)
    else:
        with fast_paths.scoring(model, narrow=not plan.variant.converts_base_change):
            yield model
        base = unload(model)
        if plan.spec.quantization == "none" and plan.variant.mergeable:
            measure(base, merged=True)
    give_back(base, plan)


def _measure_nothing(model: Any, *, merged: bool) -> None:
    pass


def _key(plan: Plan, precision: str | None = None) -> tuple[str, str, str]:
    return plan.source.digest, precision or plan.spec.precision, plan.spec.quantization
