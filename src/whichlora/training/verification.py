"""Evidence that a run trained what its spec says, so that no result stands for a method that never ran."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whichlora.errors import ProofError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from whichlora.variants.base import Variant

GRADIENT_STEPS = 5
"""Within so many optimiser steps every adapted module must have had a non-zero gradient."""

STRETCH = 64
"""Neighbouring numbers of a weight whose bits are summed for its digest."""
_STRETCHES = 1 << 15
"""Summed at a time: torch makes a copy in 64 bits of what it sums, here one of 16 MiB."""


def digest(tensor: Tensor) -> str:
    """Return a digest of a tensor's bits."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).hexdigest()


def weight_digest(weight: Tensor) -> str:
    """Return a digest of sums of a large tensor's bits, which are made on its device.

    Of a model of 16 GB not all has to be copied to the host and hashed there, before training and after. No change of a
    single number escapes, and of several numbers within a stretch only those whose differences cancel.
    """
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    bits = weight.detach().contiguous().reshape(-1).view(whole)
    even = len(bits) // STRETCH * STRETCH
    parts = torch.split(bits[:even], STRETCH * _STRETCHES)
    sums = [part.view(-1, STRETCH).sum(1, dtype=torch.int64) for part in parts]
    return digest(torch.cat([*sums, bits[even:].sum(dtype=torch.int64)[None]]))


def adapter_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name in the base model, module) of every layer that PEFT wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name.removeprefix("base_model.model."), module


@dataclass
class Evidence:
    """What was true when the adapter had just been attached.

    Attributes:
        settings: the `AdapterSettings` the variant was built from; None for full fine-tuning.
        base: digests of the adapted layers' weights before attaching, by module.
        trainable: digests of the trainable tensors just after attaching, by parameter.
        without_gradient: modules that have not yet had a non-zero gradient.
        rates: peak learning rates, by trainable parameter.
    """

    settings: Any
    base: Mapping[str, str]
    trainable: dict[str, str] = field(default_factory=dict)
    without_gradient: dict[str, list[Tensor]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    steps_seen: int = 0


def base_digests(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Return digests of the weights of the modules that are about to be adapted."""
    return {name: weight_digest(model.get_submodule(name).weight) for name in names}  # type: ignore[arg-type]


def prove_attached(model: nn.Module, variant: Variant, evidence: Evidence, *, expected: int) -> int:
    """Check that what was attached is trainable in the expected number of parameters, and return that number.

    Raises:
        ProofError: the number differs.
    """
    count = observe(model, variant, evidence)
    if count != expected:
        raise ProofError(f"{variant.name} has {count:,} trainable parameters, {expected:,} were expected")
    return count


def observe(model: nn.Module, variant: Variant, evidence: Evidence) -> int:
    """Note what is trainable and how it starts, and return its number of parameters."""
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    evidence.trainable = {n: digest(p) for n, p in trainable.items()}
    groups: dict[str, list[Tensor]] = {}
    if variant.kind == "adapter":
        for name, module in adapter_modules(model):
            groups[name] = [p for p in module.parameters() if p.requires_grad]
    else:
        for name, p in trainable.items():
            groups.setdefault(name.rpartition(".")[0], []).append(p)
    evidence.without_gradient = groups
    return sum(p.numel() for p in trainable.values())


def record_rates(model: nn.Module, optimizer: Optimizer, evidence: Evidence) -> None:
    """Note the peak learning rate at which the optimiser trains each parameter."""
    rates = {id(p): g.get("initial_lr", g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    evidence.rates = {n: rates[id(p)] for n, p in model.named_parameters() if id(p) in rates}


def prove_gradients(evidence: Evidence) -> None:
    """Look at the gradients before an optimiser step, during the first steps.

    Raises:
        ProofError: after `GRADIENT_STEPS` some adapted module has had no non-zero gradient.
    """
    if not evidence.without_gradient:
        return
    evidence.steps_seen += 1
    evidence.without_gradient = {
        name: tensors
        for name, tensors in evidence.without_gradient.items()
        if not any(p.grad is not None and bool(p.grad.any()) for p in tensors)
    }
    left = list(evidence.without_gradient)
    if left and evidence.steps_seen >= GRADIENT_STEPS:
        raise ProofError(f"no gradient reached {len(left)} adapted modules in {GRADIENT_STEPS} steps, {left[0]} first")


def prove_trained(model: nn.Module, variant: Variant, evidence: Evidence) -> None:
    """Check that training changed the adapter, and what is particular to the variant.

    Raises:
        ProofError: nothing changed, gradients could not flow through the base, or the variant's witness does not hold.
    """
    if evidence.without_gradient:
        left = list(evidence.without_gradient)
        raise ProofError(f"training ended before a gradient reached {len(left)} adapted modules, {left[0]} first")
    parameters = dict(model.named_parameters())
    if all(digest(parameters[n]) == before for n, before in evidence.trainable.items()):
        raise ProofError(f"no trainable parameter of {variant.name} changed")
    packed = [
        name
        for name, p in parameters.items()
        if getattr(getattr(p, "quant_state", None), "packing_format_for_cpu", False)
    ]
    if packed:  # gradients then reach earlier modules through the adapters alone: not zero, but wrong
        raise ProofError(
            f"{len(packed)} 4-bit weights are packed for inference and pass on no gradient, {packed[0]} first"
        )
    if variant.witness is not None:
        variant.witness(model, evidence)


def moved(model: nn.Module, evidence: Evidence, marker: str) -> None:
    """Check that every adapted module has a trainable tensor with `marker` in its name, and that each changed.

    Raises:
        ProofError: one is missing or did not move.
    """
    tensors = {n: p for n, p in model.named_parameters() if marker in n and n in evidence.trainable}
    n_modules = len(list(adapter_modules(model)))
    if len(tensors) != n_modules:
        raise ProofError(f"{len(tensors)} tensors {marker} for {n_modules} adapted modules")
    still = [n for n, p in tensors.items() if digest(p) == evidence.trainable[n]]
    if still:
        raise ProofError(f"{len(still)} tensors {marker} did not move, {still[0]} first")


def shared(model: nn.Module, *matrices: str) -> None:
    """Check that all adapted modules use one and the same frozen matrix under each of these names.

    Raises:
        ProofError: there are several, or one is trained.
    """
    for matrix in matrices:
        places = {getattr(module, matrix)["default"].data_ptr() for _, module in adapter_modules(model)}
        if len(places) != 1:
            raise ProofError(f"{matrix} is not one matrix shared by every module but {len(places)}")
        trained = [n for n, p in model.named_parameters() if matrix in n and p.requires_grad]
        if trained:
            raise ProofError(f"{matrix} is trained: {trained[0]}")


def base_kept(model: nn.Module, evidence: Evidence) -> None:
    """Check that the weights under the adapter are the base model's.

    Raises:
        ProofError: one changed.
    """
    changed = [n for n, module in adapter_modules(model) if weight_digest(module.base_layer.weight) != evidence.base[n]]
    if changed:
        raise ProofError(f"the frozen base weight changed in {len(changed)} modules, {changed[0]} first")


def merged_weight(module: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor] | None:
    """Return an adapted layer's weight without and with the adapter folded in, both (out, in).

    They are in 32 bits, or in `dtype`. None on a 4-bit base, into which nothing can be folded exactly. The module
    itself stays as it is.
    """
    import copy

    import torch

    if not module.base_layer.weight.is_floating_point():
        return None
    copied = copy.deepcopy(module).cpu().to(dtype or torch.float32)
    before = copied.base_layer.weight.detach().clone()
    copied.merge()
    return before, copied.base_layer.weight.detach()
