"""Verifies that a run trained what its spec says, so that no result is attributed to a method that never ran."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import Variant
from whichlora.variants.witness import Evidence, digest, weight_digest

GRADIENT_STEPS = 5
"""Number of optimiser steps within which every adapted module must receive a non-zero gradient."""


def base_digests(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Return digests of the modules' weights by name, to be recorded before an adapter is attached."""
    return {name: weight_digest(model.get_submodule(name).weight) for name in names}  # type: ignore[arg-type]


def prove_attached(model: nn.Module, variant: Variant, evidence: Evidence, *, expected: int) -> int:
    """Check that the model has the expected number of trainable parameters, and return it.

    Raises:
        ProofError: The number differs.
    """
    count = record_trainable(model, variant, evidence)
    if count != expected:
        raise ProofError(f"{variant.name} has {count:,} trainable parameters, {expected:,} were expected")
    return count


def record_trainable(model: nn.Module, variant: Variant, evidence: Evidence) -> int:
    """Record the trainable parameters and their initial values in `evidence`, and return their number."""
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
    """Record the peak learning rate of each parameter."""
    rates = {id(p): g.get("initial_lr", g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    evidence.rates = {n: rates[id(p)] for n, p in model.named_parameters() if id(p) in rates}


def prove_gradients(evidence: Evidence) -> None:
    """Check before an optimiser step which adapted modules have not received a non-zero gradient yet.

    Raises:
        ProofError: Some adapted module has not received one in `GRADIENT_STEPS` steps.
    """
    if not evidence.without_gradient:
        return
    evidence.steps_seen += 1
    evidence.without_gradient = {
        name: tensors
        for name, tensors in evidence.without_gradient.items()
        if not any(p.grad is not None and bool(p.grad.any()) for p in tensors)
    }
    unreached = list(evidence.without_gradient)
    if unreached and evidence.steps_seen >= GRADIENT_STEPS:
        raise ProofError(
            f"no gradient reached {len(unreached)} adapted modules in {GRADIENT_STEPS} steps, {unreached[0]} first"
        )


def prove_trained(model: nn.Module, variant: Variant, evidence: Evidence) -> None:
    """Check that training changed the adapter, and run the variant's own check (`witness`).

    Raises:
        ProofError: No parameter changed, an adapted module received no gradient, gradients could not flow through the
            base model, or the variant's check failed.
    """
    if evidence.without_gradient:
        unreached = list(evidence.without_gradient)
        raise ProofError(
            f"training ended before a gradient reached {len(unreached)} adapted modules, {unreached[0]} first"
        )
    parameters = dict(model.named_parameters())
    if all(digest(parameters[n]) == before for n, before in evidence.trainable.items()):
        raise ProofError(f"no trainable parameter of {variant.name} changed")
    packed = [
        name
        for name, p in parameters.items()
        if getattr(getattr(p, "quant_state", None), "packing_format_for_cpu", False)
    ]
    if packed:  # gradients would reach earlier modules only through the adapters: non-zero, but wrong
        raise ProofError(
            f"{len(packed)} 4-bit weights are packed for inference and propagate no gradient, {packed[0]} first"
        )
    if variant.witness is not None:
        variant.witness(model, evidence)
