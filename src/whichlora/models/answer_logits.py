"""Computes logits and loss at the positions that predict answer tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whichlora.data.batching import IGNORED


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
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    return logits.float(), labels[is_answer]
