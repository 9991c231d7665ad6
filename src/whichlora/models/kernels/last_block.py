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

_PARTS = ("self_attn.q_proj", "self_attn.o_proj", "attention.dense", "mlp")
"""Parts of a block that process tokens independently; a block has some of them."""


@contextmanager
def only_tokens(model: Any, needed: Tensor) -> Iterator[None]:
    """Restrict the last block of a transformers model to some tokens, in forward passes within this context.

    The number of tokens decides how a product is rounded, so this is for bf16, whose rounding is far coarser.

    Args:
        needed: a mask of tokens, of the shape of the input ids.
    """
    block = model.get_decoder().layers[-1]
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
    (states,) = inputs
    return (states.flatten(0, 1).index_select(0, tokens)[None],)


def _fill(tokens: Tensor, shape: torch.Size, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    filled = output.new_zeros(shape.numel(), output.shape[-1]).index_copy(0, tokens, output[0])
    return filled.view(*shape, -1)
