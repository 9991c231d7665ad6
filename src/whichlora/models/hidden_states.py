"""Passes the hidden states of a model to a callback layer by layer, so that only one layer is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from whichlora.models.adapter_layers import unwrap_peft

EMBEDDING = -1
"""Layer number of the embeddings, the input of the first block."""

Visit = Callable[[int, Tensor], None]
"""Receives a layer number and its hidden states, (items or 1, positions, width), before the final norm."""


class StopForward(Exception):  # control flow, not an error
    """Stops a forward pass once the required layers have been computed."""


def visit_hidden_states(
    model: Any, blocks: str, inputs: Mapping[str, Any], visit: Visit, *, last: int | None = None
) -> Tensor | None:
    """Run a forward pass without the LM head and visit `EMBEDDING` and then the output of every decoder block.

    Unlike the last of transformers' `hidden_states`, the output of the last block is visited before the final norm.

    Args:
        blocks: name of the list of decoder blocks (`ModelShape.blocks`).
        inputs: from `pad_right` or `packing.pack_texts`.
        last: block after which the forward pass stops; None runs all blocks.

    Returns:
        The output of the final norm, (items or 1, positions, width); None if the forward pass stopped at `last`.
    """
    base = unwrap_peft(model)
    layers = base.get_submodule(blocks)

    def before(module: Any, arguments: Any, kwargs: Any) -> None:
        visit(EMBEDDING, arguments[0] if arguments else kwargs["hidden_states"])

    def after(layer: int) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            visit(layer, output[0] if isinstance(output, tuple) else output)
            if layer == last:
                raise StopForward

        return hook

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after(number)) for number, block in enumerate(layers)]
    try:
        output: Tensor = base.get_decoder()(**inputs, use_cache=False).last_hidden_state
        return output
    except StopForward:
        return None
    finally:
        for handle in handles:
            handle.remove()


def pad_right(sequences: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    """Return `input_ids`, (items, longest), padded on the right with zeros.

    Under causal attention neither a mask nor the padding token matters.
    """
    ids = torch.zeros((len(sequences), max(map(len, sequences))), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    return {"input_ids": ids.to(device)}
