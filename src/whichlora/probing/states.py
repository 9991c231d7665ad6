"""The hidden states of a model, layer by layer, handed out as they come, so that no two layers are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

EMBEDDING = -1
"""The layer that stands for what enters the first block."""

Visit = Callable[[int, Tensor], None]
"""Receives a layer and its states, (items, positions, width), before the final norm."""


def plain(model: Any) -> Any:
    """Return the model inside a PEFT model, whose blocks hold the adapter; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def walk(model: Any, blocks: str, ids: Tensor, visit: Visit) -> None:
    """Read token ids, (items, positions), padded on the right, and visit `EMBEDDING` and then every block's output.

    `blocks` is the name of the list of decoder blocks (`ModelShape.blocks`). The LM head is not computed. Unlike the
    last of transformers' `hidden_states`, the last block's output has not gone through the final norm.
    """
    base = plain(model)
    layers = base.get_submodule(blocks)

    def before(module: Any, arguments: Any, named: Any) -> None:
        visit(EMBEDDING, arguments[0] if arguments else named["hidden_states"])

    def after(layer: int) -> Callable[[Any, Any, Any], None]:
        return lambda module, arguments, output: visit(layer, output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after(number)) for number, block in enumerate(layers)]
    try:
        base.get_decoder()(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def pad(sequences: Sequence[Sequence[int]], device: Any) -> Tensor:
    """Return token ids, (items, longest), padded on the right.

    Under causal attention no mask is needed, and it does not matter with what.
    """
    ids = torch.zeros((len(sequences), max(map(len, sequences))), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    return ids.to(device)
