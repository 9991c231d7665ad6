"""Evidence that a method trained as declared, and the checks on it that several witnesses share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

STRETCH = 64
"""Number of adjacent weight elements whose bit patterns are summed before hashing."""
_STRETCHES_PER_CHUNK = 1 << 15
"""Number of stretches summed at a time: torch copies the summands to 64 bits, which takes 16 MiB."""


def digest(tensor: Tensor) -> str:
    """Return a hash of a tensor's bits."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).hexdigest()


def weight_digest(weight: Tensor) -> str:
    """Return a hash of a large tensor's bits, after summing stretches of `STRETCH` elements on its device.

    This avoids copying and hashing all of a 16 GB model on the host, before and after training. A change of a single
    element is always detected; changes of several elements are missed only if they are in the same stretch and cancel.
    """
    import torch

    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    bits = weight.detach().contiguous().reshape(-1).view(integer)
    even = len(bits) // STRETCH * STRETCH
    parts = torch.split(bits[:even], STRETCH * _STRETCHES_PER_CHUNK)
    sums = [part.view(-1, STRETCH).sum(1, dtype=torch.int64) for part in parts]
    return digest(torch.cat([*sums, bits[even:].sum(dtype=torch.int64)[None]]))


@dataclass
class Evidence:
    """The state of the model when the adapter was attached, and observations during training.

    Attributes:
        settings: the `AdapterSettings` from which the variant was built; None without an adapter.
        base: digests of the adapted layers' weights before attaching, by module name.
        trainable: digests of the trainable tensors right after attaching, by parameter name.
        without_gradient: modules that have not had a non-zero gradient yet, with their tensors.
        optimizer: the optimiser that the variant prescribes; None for AdamW.
        rates: peak learning rates, by trainable parameter name.
        steps_seen: number of optimiser steps observed.
        last_step: the last optimiser step of the training.
    """

    settings: Any
    base: Mapping[str, str]
    trainable: dict[str, str] = field(default_factory=dict)
    without_gradient: dict[str, list[Tensor]] = field(default_factory=dict)
    optimizer: Any = None
    rates: dict[str, float] = field(default_factory=dict)
    steps_seen: int = 0
    last_step: int = 0


def check_changed(model: nn.Module, evidence: Evidence, marker: str) -> None:
    """Check that every adapted module has a trainable tensor with `marker` in its name, and that each changed.

    Raises:
        ProofError: a tensor is missing or did not change.
    """
    tensors = {n: p for n, p in model.named_parameters() if marker in n and n in evidence.trainable}
    n_modules = len(list(adapter_modules(model)))
    if len(tensors) != n_modules:
        raise ProofError(f"{len(tensors)} tensors named {marker} for {n_modules} adapted modules")
    unchanged = [n for n, p in tensors.items() if digest(p) == evidence.trainable[n]]
    if unchanged:
        raise ProofError(f"{len(unchanged)} tensors named {marker} did not change, the first is {unchanged[0]}")


def check_shared(model: nn.Module, *matrices: str) -> None:
    """Check that all adapted modules share a single frozen matrix under each of these names.

    Raises:
        ProofError: there are several matrices of one name, or one is trained.
    """
    for matrix in matrices:
        addresses = {getattr(module, matrix)["default"].data_ptr() for _, module in adapter_modules(model)}
        if len(addresses) != 1:
            raise ProofError(f"{matrix} must be one matrix shared by all modules; there are {len(addresses)}")
        trained = [n for n, p in model.named_parameters() if matrix in n and p.requires_grad]
        if trained:
            raise ProofError(f"{matrix} is trained: {trained[0]}")


def check_base_unchanged(model: nn.Module, evidence: Evidence) -> None:
    """Check that the base weights under the adapter are unchanged.

    Raises:
        ProofError: a weight changed.
    """
    changed = [n for n, module in adapter_modules(model) if weight_digest(module.base_layer.weight) != evidence.base[n]]
    if changed:
        raise ProofError(f"the frozen base weight changed in {len(changed)} modules, the first is {changed[0]}")


def first_layer(model: nn.Module) -> tuple[str, Any, tuple[Tensor, Tensor] | None]:
    """Return the name of the first adapted layer, the layer, and its weight before and after the adapter is merged.

    The weights are those of `merged_weight`: (out, in) in fp32 on the CPU, or None for a 4-bit base.
    """
    name, module = next(iter(adapter_modules(model)))
    return name, module, merged_weight(module)
