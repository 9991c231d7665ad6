"""Causal attention in bf16 on a CPU and with capped scores, and the mask of layers with a window of the last tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

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
    """Return causal attention in bf16, of the shape of `query`.

    Args:
        query, key, value: (texts, tokens, heads, width). Several query heads may share a head of `key` and `value`
            (grouped-query attention).
    """
    output: Tensor = _MatmulAttention.apply(query, key, value, scaling, window)  # type: ignore[no-untyped-call]
    return output


def capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scaling: float | None,
    softcap: float,
    dropout: float = 0.0,
) -> Tensor:
    """Return attention whose scores are bounded by `softcap`, as in Gemma 2 (arXiv 2408.00118), with softmax in fp32.

    Args:
        query, key, value: (texts, heads, tokens, width). Several query heads may share a head of `key` and `value`.
        mask: which keys (columns) the query of a token (row) attends to, (tokens, tokens).

    Returns:
        (texts, tokens, heads, width).
    """
    shared = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(query.dtype)
    return (torch.dropout(weights, dropout, dropout > 0) @ value).transpose(1, 2)


def gather_rows(states: Tensor, groups: Sequence[Tensor]) -> list[Tensor]:
    """Return rows of a matrix for each group of indices, (*indices, width).

    Gradients of a row that is taken repeatedly are summed in fp32 over all groups.
    """
    sizes = [group.numel() for group in groups]
    rows: Tensor = _GatherRows.apply(states, torch.cat([group.flatten() for group in groups]))  # type: ignore[no-untyped-call]
    parts = torch.split(rows, sizes) if len(groups) > 1 else [rows]  # the gradient of `split` is a copy
    return [part.view(*group.shape, -1) for part, group in zip(parts, groups, strict=True)]


class _GatherRows(torch.autograd.Function):
    """An embedding lookup with gradients that are summed in fp32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(indices)
        ctx.rows, ctx.dtype = len(states), states.dtype
        return embedding(indices, states)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (indices,) = ctx.saved_tensors
        total = torch.ops.aten.embedding_dense_backward(gradient.float(), indices, ctx.rows, -1, False)
        return total.to(ctx.dtype), None


class _MatmulAttention(torch.autograd.Function):
    """Attention from matrix products: scores and softmax in fp32, all other products in bf16.

    On a CPU this is the fastest implementation, with and without gradients. In bf16 a score of 1000, from key channels
    that are large for all tokens (as in Qwen2) and cancel in the softmax, would be rounded by up to 2.

    The rows of a product are the queries of all tokens and of all heads that share a key head, token by token: with one
    key head this is their order in memory.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        tokens, heads, width = query.shape[1:]
        shared = key.shape[2]
        ctx.scaling, ctx.heads = width**-0.5 if scaling is None else scaling, shared
        query, key, ctx.dtypes = _rows(query, shared), _rows(key, shared), (query.dtype, key.dtype, value.dtype)
        # Adding -inf is several times as fast as `masked_fill_`.
        mask = torch.zeros(tokens, tokens).masked_fill_(~causal_mask(tokens, window), -torch.inf)
        mask = mask.repeat_interleave(heads // shared, dim=0)
        weights = torch.add(mask, _fp32_scores(query, key), alpha=ctx.scaling).softmax(-1).to(torch.bfloat16)
        states = [state.to(torch.bfloat16) for state in (query, key, _rows(value, shared))]
        ctx.save_for_backward(weights, *states)
        return _texts(weights @ states[2], shared, tokens)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weights, query, key, value = ctx.saved_tensors
        output = _rows(gradient.to(torch.bfloat16), ctx.heads)
        of_weights = output @ value.transpose(1, 2)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.bfloat16).mul_(ctx.scaling)
        grads = of_scores @ key, of_scores.transpose(1, 2) @ query, weights.transpose(1, 2) @ output
        tokens = gradient.shape[1]
        of_states = (_texts(g, ctx.heads, tokens).to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True))
        return *of_states, None, None


def _rows(states: Tensor, shared: int) -> Tensor:
    """Return (texts, tokens, heads, width) as (texts * shared, tokens * heads / shared, width), by key heads."""
    texts, tokens, _, width = states.shape
    return states.reshape(texts, tokens, shared, -1, width).transpose(1, 2).reshape(texts * shared, -1, width)


def _texts(rows: Tensor, shared: int, tokens: int) -> Tensor:
    """Return the result of `_rows` as (texts, tokens, heads, width) again."""
    by_token = rows.view(len(rows) // shared, shared, tokens, -1, rows.shape[-1]).transpose(1, 2)
    return by_token.reshape(len(rows) // shared, tokens, -1, rows.shape[-1])


def _fp32_scores(query: Tensor, key: Tensor) -> Tensor:
    """Return the products of queries and keys in fp32.

    torch has no product of bf16 matrices with an fp32 result on a CPU. But oneDNN, if told so, rounds the factors of an
    fp32 product to bf16 and adds in fp32, which for states that are bf16 is exact and three times as fast.
    """
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    previous = settings.fp32_precision
    if query.dtype == key.dtype == torch.bfloat16:
        settings.fp32_precision = "bf16"
    try:
        return query.float() @ key.float().transpose(1, 2)
    finally:
        settings.fp32_precision = previous
