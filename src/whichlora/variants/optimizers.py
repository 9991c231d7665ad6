"""Optimisers with a separate learning rate for some of the adapter's tensors, and their check."""

from __future__ import annotations

import math
from typing import Any

from whichlora.errors import ProofError
from whichlora.variants.witness import Evidence


def two_rates(model: Any, learning_rate: float, weight_decay: float, *, marker: str, ratio: float) -> Any:
    """Return AdamW with `learning_rate`, and with `ratio` times that rate for tensors with `marker` in their names."""
    import torch

    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trainable if marker not in n], "lr": learning_rate},
        {"params": [p for n, p in trainable if marker in n], "lr": learning_rate * ratio},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)


def check_two_rates(evidence: Evidence, *, marker: str, ratio: float) -> None:
    """Check that the optimiser used two learning rates with this ratio.

    Raises:
        ProofError: the optimiser used other rates.
    """
    marked = {rate for name, rate in evidence.rates.items() if marker in name}
    others = {rate for name, rate in evidence.rates.items() if marker not in name}
    if len(marked) != 1 or len(others) != 1 or not math.isclose(marked.pop(), ratio * others.pop()):
        rates = sorted(set(evidence.rates.values()))
        raise ProofError(f"the learning rates are {rates}; {marker} must have {ratio} times the rate of the rest")
