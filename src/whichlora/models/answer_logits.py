"""Computes logits and loss at the positions that predict answer tokens."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from whichlora.data.batching import IGNORED
from whichlora.models.adapter_layers import unwrap_peft


def answer_loss(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the summed cross-entropy over the answer tokens of a padded or packed batch, and their number.

    It is computed from the logits, because a model's own `loss` may include other terms (AdaLoRA adds its penalty).
    """
    logits, targets = answer_logits(model, batch)
    return nn.functional.cross_entropy(logits, targets, reduction="sum"), len(targets)


def answer_logits(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the logits in fp32, (answer tokens, vocabulary), and the answer tokens, (answer tokens,), in order.

    The LM head is applied only at the positions before answer tokens: the other logits are not needed.
    """
    labels = batch["labels"][:, 1:]
    is_answer = labels != IGNORED
    keep = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    keep[:, :-1] = is_answer
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return logits_at(model, keep, **inputs, use_cache=False).float(), labels[is_answer]


def logits_at(model: nn.Module, positions: Tensor, **inputs: Any) -> Tensor:
    """Return a model's logits at some positions; a few architectures can only compute those of all positions.

    Args:
        positions: a mask, (texts, tokens), for logits of the shape (positions, vocabulary); or indices, of the shape
            (texts, count), or (count,) for the same in every text, for (texts, count, vocabulary).
    """
    if "logits_to_keep" in signature(type(unwrap_peft(model)).forward).parameters:
        logits: Tensor = model(**inputs, logits_to_keep=positions).logits
        return logits
    logits = model(**inputs).logits
    if positions.dtype == torch.bool:
        return logits[positions]
    return logits[:, positions] if positions.ndim == 1 else torch.take_along_dim(logits, positions[..., None], dim=1)
