"""The last decoder block without the tokens whose output nothing reads.

After the last block only the states of some tokens reach the LM head. Its keys and values are needed for all tokens,
but queries, the output projection and the MLP process each token independently, so these read and return the needed
tokens alone; the others get zeros. Logits, and gradients of what depends on them, are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whichlora.models.kernels.onednn import padding_rows

_PARTS = (
    *("self_attn.q_proj", "self_attn.o_proj", "self_attn.out_proj", "self_attn.dense"),
    *("self_attention.dense", "attention.dense", "attn.c_proj", "mlp", "fc1", "fc2"),
)
"""Parts of a block that process tokens independently; a block has some of them."""


@contextmanager
def only_tokens(model: Any, needed: Tensor) -> Iterator[None]:
    """Restrict the last block of a transformers model to some tokens, in forward passes within this context.

    The number of tokens decides how a product is rounded, so this is for bf16, whose rounding is far coarser.

    Args:
        needed: a mask of tokens, of the shape of the input ids.
    """
    decoder = model.get_decoder()
    block = (decoder.layers if hasattr(decoder, "layers") else decoder.h)[-1]
    tokens = _with_padding(needed.flatten())
    handles = []
    # Gradient checkpointing repeats the forward pass of a block after this context has ended.
    for name in () if getattr(block, "gradient_checkpointing", False) else _PARTS:
        part = _submodule(block, name)
        if part is not None:
            handles.append(part.register_forward_pre_hook(partial(_select, tokens)))
            handles.append(part.register_forward_hook(partial(_fill, tokens, needed.shape)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_padding(needed: Tensor) -> Tensor:
    """Return the indices of needed tokens and of a few others, whose states are computed too (see `padding_rows`)."""
    order = needed.int().argsort(descending=True, stable=True)
    count = int(needed.sum())
    return order[: count + padding_rows(count)]


def _submodule(block: nn.Module, name: str) -> nn.Module | None:
    module: Any = block
    for part in name.split("."):
        module = getattr(module, part, None)
    return module if isinstance(module, nn.Module) else None


def _select(tokens: Tensor, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the needed rows of each input, which is (texts, tokens, width) or, in OPT, (texts * tokens, width)."""
    rows = [states.flatten(0, -2).index_select(0, tokens) for states in inputs]
    return tuple(few[None] if states.ndim == 3 else few for few, states in zip(rows, inputs, strict=True))


def _fill(tokens: Tensor, shape: torch.Size, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    rows = output.flatten(0, -2)
    filled = output.new_zeros(shape.numel(), output.shape[-1]).index_copy(0, tokens, rows)
    return filled.view(*shape, -1) if output.ndim == 3 else filled
