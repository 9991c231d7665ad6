"""The hidden states of a model, layer by layer, handed out as they come, so that no two layers are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from whichlora.models.adapter_layers import unwrap_peft

EMBEDDING = -1
"""The layer that stands for what enters the first block."""

Visit = Callable[[int, Tensor], None]
"""Receives a layer and its states, (items or 1, positions, width), before the final norm."""


class StopForward(Exception):  # no error: it ends a forward pass
    """All that is wanted of a forward pass has been handed out."""


def visit_hidden_states(
    model: Any, blocks: str, inputs: Mapping[str, Any], visit: Visit, *, last: int | None = None
) -> Tensor | None:
    """Read what `pad` or `packing.pack_texts` made and visit `EMBEDDING` and then every block's output.

    `blocks` is the name of the list of decoder blocks (`ModelShape.blocks`). The LM head is not computed. Unlike the
    last of transformers' `hidden_states`, the last block's output has not gone through the final norm.

    After the block `last` the forward pass ends: what leaves a block does not depend on those after it.

    Returns:
        what leaves the final norm, (items or 1, positions, width); None if the forward pass ended before.
    """
    base = unwrap_peft(model)
    layers = base.get_submodule(blocks)

    def before(module: Any, arguments: Any, named: Any) -> None:
        visit(EMBEDDING, arguments[0] if arguments else named["hidden_states"])

    def after(layer: int) -> Callable[[Any, Any, Any], None]:
        def seen(module: Any, arguments: Any, output: Any) -> None:
            visit(layer, output[0] if isinstance(output, tuple) else output)
            if layer == last:
                raise StopForward

        return seen

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
    """Return `input_ids`, (items, longest), padded on the right.

    Under causal attention no mask is needed, and it does not matter with what.
    """
    ids = torch.zeros((len(sequences), max(map(len, sequences))), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    return {"input_ids": ids.to(device)}
