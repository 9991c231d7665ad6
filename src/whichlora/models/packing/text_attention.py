"""Attention within each text of a packed row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from whichlora.models.hidden_states import StopForward
from whichlora.models.kernels.attention import (
    MAX_MATMUL_TOKENS,
    capped_attention,
    causal_mask,
    gather_rows,
    matmul_attention,
)
from whichlora.models.packing.rows import Layout

NAME = "whichlora_packed"
"""Name of `attend` in transformers' interface of attention functions."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    bias: Callable[[int], Tensor] | None = None,
    stop_layer: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each text, as transformers' SDPA function does.

    Args:
        query, key, value: (1, heads, tokens, width).
        sliding_window: number of keys that a token attends to, its own included, in a layer with a window. transformers
            masks the others itself; here only groups of longer texts need a mask.
        softcap: bound of the scores, see `capped_attention`.
        bias: returns what is added to the scaled scores of the keys of a text of so many tokens, (heads, 1, tokens).
        stop_layer: block at which the forward pass stops, when only the key-value cache is needed, which by then
            contains this block's keys and values.

    Returns:
        The output, (1, tokens, heads, width), and None in place of attention weights.
    """
    if module.layer_idx == stop_layer:
        raise StopForward
    heads = [states.shape[1] for states in (query, key, value)]
    flat = [states[0].transpose(0, 1).flatten(1) for states in (query, key, value)]
    # On a CPU torch's SDPA is slower in bf16 than in fp32.
    is_cpu_bf16 = query.device.type == "cpu" and value.dtype == torch.bfloat16
    # An embedding lookup has the fastest backward pass on a CPU for repeated indices.
    gathered = [
        gather_rows(s, layout.groups) if is_cpu_bf16 else [embedding(g, s) for g in layout.groups] for s in flat
    ]
    is_fast = is_cpu_bf16 and softcap is None and bias is None and not kwargs.get("dropout")
    outputs = []
    with torch.autocast("cpu", enabled=False) if is_cpu_bf16 else nullcontext():
        for group in zip(*gathered, strict=True):
            padded = [states.unflatten(2, (n, -1)) for states, n in zip(group, heads, strict=True)]
            tokens = padded[0].shape[1]
            window = sliding_window if sliding_window and sliding_window < tokens else None
            if is_fast and tokens <= MAX_MATMUL_TOKENS:
                output = matmul_attention(*padded, scaling=scaling, window=window)
            else:
                padded = [(states.float() if is_cpu_bf16 else states).transpose(1, 2) for states in padded]
                output = _attend_in_rows(
                    module, *padded, window=window, scaling=scaling, softcap=softcap, bias=bias, **kwargs
                )
            outputs.append(output.flatten(0, 1).flatten(1))
    output = embedding(layout.tokens, torch.cat(outputs))  # its backward pass is faster than that of indexing
    return output.view(1, len(layout.tokens), heads[0], -1).to(value.dtype), None


def _attend_in_rows(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
    bias: Callable[[int], Tensor] | None,
    **kwargs: Any,
) -> Tensor:
    """Attend within padded rows, each a text: (texts, heads, tokens, width) to (texts, tokens, heads, width)."""
    tokens, device = query.shape[2], query.device
    mask = None
    if softcap is not None:
        mask = causal_mask(tokens, window, device)
        dropout = kwargs.get("dropout", 0.0)
        return capped_attention(query, key, value, mask, scaling=scaling, softcap=softcap, dropout=dropout)
    if bias is not None:
        mask = torch.where(causal_mask(tokens, window, device), bias(tokens).to(query.dtype), -torch.inf)[None]
    elif window is not None:
        mask = causal_mask(tokens, window, device)
    options = {"is_causal": True, "scaling": scaling, **kwargs}
    output: Tensor = sdpa_attention_forward(module, query, key, value, mask, **options)[0]
    return output


AttentionInterface.register(NAME, attend)
