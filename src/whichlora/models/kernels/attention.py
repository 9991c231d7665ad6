"""Causal attention in bf16 on a CPU, and the mask of layers that attend to a window of the last tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_MATMUL_TOKENS = 256
"""Longest text for which stored bf16 attention weights take no more memory than the fp32 states, roughly."""


def causal_mask(tokens: int, window: int | None, device: Any = None) -> Tensor:
    """Return which keys (columns) the query of a token (row) attends to, (tokens, tokens): those up to its own.

    With a window these are the last `window` ones, its own among them, as in transformers and in Mistral's paper
    (arXiv 2310.06825).
    """
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    return mask if window is None else mask.triu(1 - window)


def matmul_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, window: int | None = None
) -> Tensor:
    """Return causal attention in bf16, (texts, tokens, heads, width).

    Several query heads may share a head of `key` and `value` (grouped-query attention).
    """
    output: Tensor = _MatmulAttention.apply(query, key, value, scaling, window)  # type: ignore[no-untyped-call]
    return output


class _MatmulAttention(torch.autograd.Function):
    """Attention from matrix products: scores and softmax in fp32, all other products in bf16.

    On a CPU this is the fastest implementation, with and without gradients. The scores are products of fp32 matrices,
    because torch has no product of bf16 matrices with an fp32 result on a CPU. In bf16 a score of 1000, from key
    channels that are large for all tokens (as in Qwen2) and cancel in the softmax, would be rounded by up to 2.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        texts, heads, tokens, width = query.shape
        ctx.scaling = width**-0.5 if scaling is None else scaling
        grouped = query.reshape(texts, key.shape[1], -1, width)
        scores = ((grouped.float() * ctx.scaling) @ key.float().transpose(2, 3)).view(texts, heads, tokens, tokens)
        # Adding -inf is several times as fast as `masked_fill_`.
        scores += torch.zeros(tokens, tokens).masked_fill_(~causal_mask(tokens, window), -torch.inf)
        weights = scores.softmax(-1).to(torch.bfloat16)
        states = [state.to(torch.bfloat16) for state in (grouped, key, value)]
        ctx.save_for_backward(weights, *states)
        ctx.dtypes = [state.dtype for state in (query, key, value)]
        output: Tensor = weights.view(texts, key.shape[1], -1, tokens) @ states[2]
        return output.view(texts, heads, tokens, width).transpose(1, 2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weights, query, key, value = ctx.saved_tensors
        texts, heads, tokens, _ = weights.shape
        output = gradient.to(torch.bfloat16).transpose(1, 2).reshape(query.shape)
        of_weights = (output @ value.transpose(2, 3)).view_as(weights)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.bfloat16).view(*query.shape[:3], tokens)
        grouped_weights = weights.view(*query.shape[:3], tokens)
        of_query = (of_scores @ key).view(texts, heads, tokens, -1) * ctx.scaling
        of_key = of_scores.transpose(2, 3) @ (query * ctx.scaling)
        of_value = grouped_weights.transpose(2, 3) @ output
        grads = zip((of_query, of_key, of_value), ctx.dtypes, strict=True)
        return *(grad.to(dtype) for grad, dtype in grads), None, None
