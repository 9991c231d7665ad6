"""Logits at the positions that predict answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whichlora.data.batching import IGNORED


def answer_loss(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Cross-entropy of the answer tokens, summed, and their number, of a batch that is padded or packed.

    It is made from the logits, because a model's own `loss` may hold more (AdaLoRA adds its penalty to it).
    """
    logits, targets = answer_logits(model, batch)
    return nn.functional.cross_entropy(logits, targets, reduction="sum"), len(targets)


def answer_logits(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return (answer tokens, vocabulary) logits in fp32, and (answer tokens,) of the tokens themselves, in order.

    The LM head is applied at the positions before answer tokens only: the others' logits would be thrown away.
    """
    labels = batch["labels"][:, 1:]
    learnt = labels != IGNORED
    keep = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    keep[:, :-1] = learnt
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    return logits.float(), labels[learnt]
