"""Pools the states of a word: the mean over its tokens of one decoder block's output.

Targeted lexical injection (arXiv 2506.15415) trains transformers' `hidden_states[2]`, the output of block 1, and
reports the model's output after all blocks and the final norm. Both are measured here. The paper's mean includes the
first token (BOS), whose state is the same for every word and in most layers large enough to dominate the mean (the
alignment probe shows it); by default that token is excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whichlora.data.word_pooling import Pooling
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.hidden_states import pad_right, visit_hidden_states
from whichlora.models.rope_switch import sides, switch_length

SITES = ("pooled", "output")
"""Where states are measured: at the trained layer, and after the final norm, the input of the LM head."""


def mean_over_tokens(states: Tensor, lengths: Tensor, start: int) -> Tensor:
    """Return the fp32 mean, (items, width), of `states`, (items, positions, width), from `start` to each length."""
    position = torch.arange(states.shape[1], device=states.device)
    mask = ((position >= start) & (position < lengths[:, None])).to(torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return torch.einsum("itw,it->iw", states.float(), mask) / mask.sum(1, keepdim=True)


def pooled_states(model: Any, blocks: str, sequences: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
    """Return the pooled states of token sequences, (sequences, width), with gradients; later blocks are skipped.

    `blocks` is the name of the list of decoder blocks.
    """
    parts = sides([len(s) for s in sequences], switch_length(unwrap_peft(model).config))
    pooled: list[Tensor] = []
    for part in parts:
        texts = [sequences[i] for i in part]
        lengths = torch.tensor([len(s) for s in texts], device=model.device)

        def visit(layer: int, states: Tensor, lengths: Tensor = lengths) -> None:
            if layer == pooling.layer:
                pooled.append(mean_over_tokens(states, lengths, pooling.start))

        visit_hidden_states(model, blocks, pad_right(texts, model.device), visit, last=pooling.layer)
    order = [i for part in parts for i in part]
    return torch.cat(pooled)[torch.tensor(order).argsort()] if len(parts) > 1 else pooled[0]


def states_at_sites(model: Any, blocks: str, sequences: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
    """Return the states at the pooled layer and in the model's output, (`SITES`, sequences, width)."""
    lengths = torch.tensor([len(s) for s in sequences], device=model.device)
    pooled: list[Tensor] = []

    def visit(layer: int, states: Tensor) -> None:
        if layer == pooling.layer:
            pooled.append(mean_over_tokens(states, lengths, pooling.start))

    output = visit_hidden_states(model, blocks, pad_right(sequences, model.device), visit)
    assert output is not None
    return torch.stack([*pooled, mean_over_tokens(output, lengths, pooling.start)])
