"""Evidence that a method trained, gathered at attachment and checked after training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules

if TYPE_CHECKING:
    from torch import Tensor, nn

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


def check_moved(model: nn.Module, evidence: Evidence, marker: str) -> None:
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


def check_shared(model: nn.Module, *matrices: str) -> None:
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


def check_base_unchanged(model: nn.Module, evidence: Evidence) -> None:
    """Check that the weights under the adapter are the base model's.

    Raises:
        ProofError: one changed.
    """
    changed = [n for n, module in adapter_modules(model) if weight_digest(module.base_layer.weight) != evidence.base[n]]
    if changed:
        raise ProofError(f"the frozen base weight changed in {len(changed)} modules, {changed[0]} first")
