"""The attention kernel computes what torch's attention does, for texts of any length and with windows."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import sliding_window_causal_mask_function

from whichlora.models.kernels.attention import causal_mask, matmul_attention


def test_a_window_counts_as_in_transformers() -> None:
    row, column = torch.arange(12)[:, None], torch.arange(12)
    for window in (1, 2, 8, 11, 12, 40):
        theirs = sliding_window_causal_mask_function(window)(0, 0, row, column)  # type: ignore[arg-type]
        assert torch.equal(causal_mask(12, window), theirs)
    assert torch.equal(causal_mask(12, None), causal_mask(12, 12))


@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize(
    ("scaling", "window"), [(None, None), (0.3, None), (None, 2), (0.3, 4), (None, 10), (None, 11)]
)
def test_matmul_attention_equals_torchs_within_rounding(
    heads: int, shared: int, scaling: float | None, window: int | None
) -> None:
    torch.manual_seed(1)
    states = [torch.randn(5, n, 11, 16, requires_grad=True) for n in (heads, shared, shared)]
    upstream = torch.randn(5, 11, heads, 16)

    def outcome(attended: torch.Tensor) -> list[torch.Tensor]:
        grads = torch.autograd.grad(attended, states, upstream.to(attended.dtype))
        return [attended.detach().float(), *grads]

    distance = torch.arange(11)[:, None] - torch.arange(11)
    mask = (distance >= 0) & (distance < (window or 11))
    same = scaled_dot_product_attention(*states, attn_mask=mask, enable_gqa=True, scale=scaling).transpose(1, 2)
    attended = matmul_attention(*(part.transpose(1, 2) for part in states), scaling=scaling, window=window)
    for ours, theirs in zip(outcome(attended), outcome(same), strict=True):
        assert float((ours - theirs).norm()) < 0.01 * float(theirs.norm())


@pytest.mark.parametrize("width", [8, 64])
def test_matmul_attention_is_as_exact_as_the_librarys_where_large_key_channels_cancel(width: int) -> None:
    """In bf16 the scores of about 1000, whose spacing is 4, would lose all that distinguishes the tokens."""
    torch.manual_seed(2)
    query, key, value = (torch.randn(2, 4, 40, width) for _ in range(3))
    query[..., :2] += 30
    key[..., :2] = 100
    states = [part.bfloat16().requires_grad_() for part in (query, key, value)]
    precise = [part.detach().double().requires_grad_() for part in states]
    upstream = torch.randn(2, 40, 4, width)

    def outcome(attended: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        grads = torch.autograd.grad(attended, inputs, upstream.to(attended.dtype))
        return [part.double() for part in (attended.detach(), *grads)]

    def library(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return outcome(scaled_dot_product_attention(*inputs, is_causal=True).transpose(1, 2), inputs)

    ours = outcome(matmul_attention(*(part.transpose(1, 2) for part in states), scaling=None), states)
    for mine, theirs, exact in zip(ours, library(states), library(precise), strict=True):
        assert float((mine - exact).norm()) < max(0.01 * float(exact.norm()), float((theirs - exact).norm()))
