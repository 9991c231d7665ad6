"""What is minimised: (model, batch) -> sum of losses and how many there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whichlora.encoding import IGNORED


def answer_tokens(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Cross-entropy of the answer tokens, summed, and their number, of a batch that is padded or packed.

    The LM head is applied at the positions before answer tokens only: the others' logits would be thrown away. The
    loss is made from the logits, because a model's own `loss` may hold more (AdaLoRA adds its penalty to it).
    """
    labels = batch["labels"][:, 1:]
    learnt = labels != IGNORED
    keep = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    keep[:, :-1] = learnt
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    targets = labels[learnt]
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum"), len(targets)
