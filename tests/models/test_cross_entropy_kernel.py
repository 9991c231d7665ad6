"""Cross-entropy of bf16 logits equals torch's in fp32, and its gradient is that gradient, rounded."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from whichlora.models.kernels.cross_entropy import _CHUNK, summed_cross_entropy


@pytest.mark.parametrize(
    ("tokens", "vocabulary"), [(1, 50), (7, 50), (0, 50), (5, _CHUNK // 2), (3, _CHUNK + 1)], ids=str
)
def test_loss_and_gradient_equal_torchs(tokens: int, vocabulary: int) -> None:
    torch.manual_seed(1)
    logits = (5 * torch.randn(tokens, vocabulary)).bfloat16().requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,))
    theirs, ours = cross_entropy(logits.float(), targets, reduction="sum"), summed_cross_entropy(logits, targets)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    (expected,) = torch.autograd.grad(theirs / 3, logits)
    (gradient,) = torch.autograd.grad(ours / 3, logits)
    assert gradient.dtype == logits.dtype
    assert float((gradient - expected).float().norm()) <= 1e-3 * float(expected.float().norm())


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[3e4, 0.0, -3e4], [200.0, 200.0, -200.0]]).bfloat16().requires_grad_()
    loss = summed_cross_entropy(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.tolist() == [[0, 0, 0], [0.5, -0.5, 0]]
