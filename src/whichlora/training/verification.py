"""Verifies that a run trained what its spec says, so that no result is attributed to a method that never ran."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from whichlora.errors import NonFiniteError, ProofError
from whichlora.models.adapter_layers import adapter_modules, trained_modules
from whichlora.variants.base import Variant
from whichlora.variants.witness import Evidence, digest, weight_digest

GRADIENT_STEPS = 5
"""Number of optimiser steps within which every adapted module must receive a non-zero gradient."""

_ZERO_LOSS = 1e-3
"""Summed loss up to which a gradient may vanish because all answers are certain."""


def base_digests(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Return digests of the modules' weights by name, to be recorded before an adapter is attached.

    Raises:
        NonFiniteError: A weight is not finite.
    """
    weights: dict[str, Tensor] = {name: model.get_submodule(name).weight for name in names}  # type: ignore[misc]
    prove_finite(weights.items(), "in the base model")
    return {name: weight_digest(weight) for name, weight in weights.items()}


def trainable_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def prove_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Check that no tensor has a NaN or an infinite entry; on a GPU, wait for the device only once.

    Args:
        tensors: tensors with their names.
        where: when or where the tensors were found, for the message.

    Raises:
        NonFiniteError: A tensor has; the message names the first.
    """
    named = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    if named:
        finite = torch.stack([tensor.detach().isfinite().all() for _, tensor in named]).tolist()
        bad = [name for (name, _), ok in zip(named, finite, strict=True) if not ok]
        if bad:
            raise NonFiniteError(f"{bad[0]} is not finite {where}" + f" ({len(bad)} tensors are not)" * (len(bad) > 1))


def prove_step(step: int, loss: Tensor, norm: Tensor, model: nn.Module, *, learning: bool = False) -> bool:
    """Check the summed loss and the gradient norm of a step before the optimiser uses the gradients.

    In bf16, states that overflow in an RMS norm become zero: all logits are then equal and finite, and the gradient is
    zero. This is an error too.

    Args:
        learning: whether an earlier step had a gradient; after `GRADIENT_STEPS` steps there must be one anyway.

    Returns:
        Whether this step or an earlier one had a gradient.

    Raises:
        NonFiniteError: One of the two is not finite, or the gradient is zero although the loss is not.
    """
    # Both are read at once, because on a GPU each read waits for the device.
    loss_value, norm_value = torch.stack([loss.detach().float(), norm.detach().to(loss.device).float()]).tolist()
    if not math.isfinite(loss_value):
        prove_finite(trainable_tensors(model).items(), f"at step {step}, and so the training loss is {loss_value}")
        raise NonFiniteError(f"the training loss is {loss_value} at step {step}")
    if not math.isfinite(norm_value):
        norms = {n: float(p.grad.float().norm()) for n, p in model.named_parameters() if p.grad is not None}
        name = max(norms, key=lambda n: math.inf if math.isnan(norms[n]) else norms[n])
        raise NonFiniteError(f"the gradient norm is {norm_value} at step {step}, that of {name} alone is {norms[name]}")
    if norm_value == 0 and loss_value > _ZERO_LOSS and (learning or step > GRADIENT_STEPS):
        raise NonFiniteError(f"the gradient is zero at step {step}, so states in the model must have overflowed")
    return learning or norm_value > 0


def prove_attached(model: nn.Module, variant: Variant, evidence: Evidence, *, expected: int) -> int:
    """Check that the model has the expected number of trainable parameters, and return it.

    Raises:
        ProofError: The number differs, or the tensors fail the checks of `record_trainable`.
    """
    count = record_trainable(model, variant, evidence)
    if count != expected:
        raise ProofError(f"{variant.name} has {count:,} trainable parameters, {expected:,} were expected")
    return count


def record_trainable(model: nn.Module, variant: Variant, evidence: Evidence) -> int:
    """Record the trainable parameters and their initial values in `evidence`, and return their number.

    Raises:
        ProofError: A trainable tensor is not fp32, where small updates would be lost.
        NonFiniteError: A trainable tensor is not finite.
    """
    trainable = trainable_tensors(model)
    prove_fp32(trainable)
    prove_finite(trainable.items(), "before training")
    evidence.trainable = {n: digest(p) for n, p in trainable.items()}
    groups: dict[str, list[Tensor]] = {}
    if variant.has_adapter:
        for name, module in trained_modules(model):
            groups[name] = [p for p in module.parameters() if p.requires_grad]
    else:
        # MoLF's experts are groups of their own: a zero B gives no gradient to A.
        experts = {
            id(p): name
            for name, module in adapter_modules(model)
            for own, p in module.named_parameters()
            if not own.startswith("base_layer.")
        }
        for name, p in trainable.items():
            groups.setdefault(experts.get(id(p), name.rpartition(".")[0]), []).append(p)
    evidence.without_gradient = groups
    return sum(p.numel() for p in trainable.values())


def prove_fp32(trainable: Mapping[str, Tensor]) -> None:
    """Check that every trainable tensor is fp32.

    Raises:
        ProofError: One is not.
    """
    narrow = [(name, tensor.dtype) for name, tensor in trainable.items() if tensor.dtype != torch.float32]
    if narrow:
        name, dtype = narrow[0]
        raise ProofError(f"{len(narrow)} of {len(trainable)} trained tensors are not fp32, {name} ({dtype}) first")


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
        NonFiniteError: A trained tensor is not finite.
        ProofError: No parameter changed, an adapted module received no gradient, gradients could not flow through the
            base model, or the variant's check failed.
    """
    trained = trainable_tensors(model)
    prove_finite(trained.items(), f"after step {evidence.last_step}")
    prove_fp32(trained)
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
