"""The state of a word: the mean over its tokens of what leaves one decoder block.

Targeted lexical injection (arXiv 2506.15415) trains transformers' `hidden_states[2]`, which leave block 1, and reports
the model's output, which has gone through all blocks and the final norm. Both are measured. Its mean takes in the first
token (BOS), whose state is the same for every word and so large in most layers that it rules the mean (the alignment
probe shows it); by default that token is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whichlora.data.word_pooling import Pooling
from whichlora.models.hidden_states import pad_right, visit_hidden_states

SITES = ("pooled", "output")
"""Where words are measured: at the layer that is trained, and in what the model hands to its LM head."""


def mean_over_tokens(states: Tensor, lengths: Tensor, start: int) -> Tensor:
    """Return (items, width): the mean in 32 bits of `states` (items, positions, width) from `start` to each length."""
    place = torch.arange(states.shape[1], device=states.device)
    counted = ((place >= start) & (place < lengths[:, None])).to(torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return torch.einsum("itw,it->iw", states.float(), counted) / counted.sum(1, keepdim=True)


def pooled_states(model: Any, blocks: str, sequences: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
    """Return (sequences, width): the states of token ids at the pooled layer; what comes after it is not computed.

    Gradients flow through it. `blocks` is the name of the list of decoder blocks.
    """
    lengths = torch.tensor([len(s) for s in sequences], device=model.device)
    found: list[Tensor] = []

    def visit(layer: int, states: Tensor) -> None:
        if layer == pooling.layer:
            found.append(mean_over_tokens(states, lengths, pooling.start))

    visit_hidden_states(model, blocks, pad_right(sequences, model.device), visit, last=pooling.layer)
    return found[0]


def states_at_sites(model: Any, blocks: str, sequences: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
    """Return (`SITES`, sequences, width): the states at the pooled layer and in the model's output."""
    lengths = torch.tensor([len(s) for s in sequences], device=model.device)
    found: list[Tensor] = []

    def visit(layer: int, states: Tensor) -> None:
        if layer == pooling.layer:
            found.append(mean_over_tokens(states, lengths, pooling.start))

    output = visit_hidden_states(model, blocks, pad_right(sequences, model.device), visit)
    assert output is not None
    return torch.stack([*found, mean_over_tokens(output, lengths, pooling.start)])
