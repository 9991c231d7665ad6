"""Evidence that a run trained what its spec says, so that no result stands for a method that never ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.witness import Evidence, digest, weight_digest

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from whichlora.variants.base import Variant

GRADIENT_STEPS = 5
"""Within so many optimiser steps every adapted module must have had a non-zero gradient."""


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
    if variant.has_adapter:
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
