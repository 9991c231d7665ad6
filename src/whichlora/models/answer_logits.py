"""Computes logits and loss at the positions that predict answer tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from whichlora.data.batching import IGNORED
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.kernels import last_block
from whichlora.models.kernels.cross_entropy import summed_cross_entropy


def answer_loss(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the summed cross-entropy over the answer tokens of a padded or packed batch, and their number.

    It is computed from the logits, because a model's own `loss` may include other terms (AdaLoRA adds its penalty).
    """
    logits, targets = _answer_logits(model, batch)
    return summed_loss(logits, targets), len(targets)


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in fp32, summed over tokens, of logits of a model, (tokens, vocabulary)."""
    if logits.device.type == "cpu" and logits.dtype == torch.bfloat16:
        return summed_cross_entropy(logits, targets)
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def answer_logits(model: nn.Module, batch: dict[str, Any], *, every_token: bool = False) -> tuple[Tensor, Tensor]:
    """Return the logits in fp32, (answer tokens, vocabulary), and the answer tokens, (answer tokens,), in order.

    The LM head is applied only at the positions before answer tokens: the other logits are not needed. `every_token` is
    that of `logits_at`.
    """
    logits, targets = _answer_logits(model, batch, every_token=every_token)
    return logits.float(), targets


def _answer_logits(model: nn.Module, batch: dict[str, Any], *, every_token: bool = False) -> tuple[Tensor, Tensor]:
    """Return the logits of `answer_logits` in the model's dtype, and the answer tokens."""
    labels = batch["labels"][:, 1:]
    is_answer = labels != IGNORED
    keep = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    keep[:, :-1] = is_answer
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return logits_at(model, keep, every_token=every_token, **inputs, use_cache=False), labels[is_answer]


def logits_at(model: nn.Module, positions: Tensor, *, every_token: bool = False, **inputs: Any) -> Tensor:
    """Return a model's logits at some positions; a few architectures can only compute those of all positions.

    Args:
        positions: a mask, (texts, tokens), for logits of the shape (positions, vocabulary); or indices, of the shape
            (texts, count), or (count,) for the same in every text, for (texts, count, vocabulary).
        every_token: whether modules of the last block must read all tokens, whatever the positions.
    """
    restricted: AbstractContextManager[None] = nullcontext()
    if "layout" in inputs and not every_token and _computes_in_bf16_on_cpu(model):
        needed = positions
        if positions.dtype != torch.bool:
            needed = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
            needed[:, positions.flatten()] = True
        restricted = last_block.only_tokens(unwrap_peft(model), needed)
    with restricted:
        if "logits_to_keep" in signature(type(unwrap_peft(model)).forward).parameters:
            logits: Tensor = model(**inputs, logits_to_keep=positions).logits
            return logits
        logits = model(**inputs).logits
    if positions.dtype == torch.bool:
        return logits[positions]
    return logits[:, positions] if positions.ndim == 1 else torch.take_along_dim(logits, positions[..., None], dim=1)


def _computes_in_bf16_on_cpu(model: Any) -> bool:
    weight = unwrap_peft(model).get_input_embeddings().weight
    return weight.device.type == "cpu" and (weight.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
