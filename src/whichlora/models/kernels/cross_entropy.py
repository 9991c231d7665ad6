"""Cross-entropy of bf16 logits over a large vocabulary on a CPU, without fp32 copies of all logits.

torch's function in fp32 keeps the logits, their log-probabilities and the gradient of both as matrices of (tokens,
vocabulary). Here a few rows at a time are widened, which stay in the processor's cache, so the sums are in fp32 as
well and only the gradient is rounded, once, to the dtype of the logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 1 << 18
"""Logits that are widened at a time: 1 MiB in fp32."""


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in fp32, summed over tokens, of logits of any dtype, (tokens, vocabulary)."""
    loss: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """`summed_cross_entropy`, with a gradient for the logits, `upstream * (softmax - one-hot target)`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        normalizers = torch.cat([logits.new_empty(0, dtype=torch.float32), *(x.logsumexp(-1) for x in _wide(logits))])
        ctx.save_for_backward(logits, targets, normalizers)
        return (normalizers - logits.gather(1, targets[:, None])[:, 0].float()).sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits, targets, normalizers = ctx.saved_tensors
        gradient, start = torch.empty_like(logits), 0
        for rows in _wide(logits):
            span = slice(start, start := start + len(rows))
            rows.sub_(normalizers[span, None]).exp_()
            rows[torch.arange(len(rows)), targets[span]] -= 1
            gradient[span] = rows.mul_(upstream)
        return gradient, None


def _wide(logits: Tensor) -> Iterator[Tensor]:
    """Yield copies of successive rows in fp32."""
    return (rows.to(torch.float32, copy=True) for rows in torch.split(logits, max(1, _CHUNK // logits.shape[1])))
