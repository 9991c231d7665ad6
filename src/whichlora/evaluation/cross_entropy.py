"""Measures the cross-entropy of a model on general text, in nats per token, to see what training has unlearnt.

The unit is the token of the base model's tokenizer, so that values of one base model are comparable and those of
models with different tokenizers are not. Each token of a text is predicted once; special tokens and padding are never
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from whichlora.data.encoding import Encoder
from whichlora.data.general_text.windows import windows
from whichlora.errors import NonFiniteError
from whichlora.evaluation import inference
from whichlora.models.answer_logits import answer_logits

_ROWS = 256
"""Logits are widened for this many tokens at a time: those of a large vocabulary are the largest tensors of all."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """The mean cross-entropy of a text in nats per token, and the number of tokens that it is over."""

    nats: float
    tokens: int


@torch.inference_mode()
def cross_entropy(model: Any, encoder: Encoder, blocks: Sequence[str], *, name: str) -> CrossEntropy:
    """Return a model's cross-entropy on the blocks of a text, each read from its beginning; in eval mode.

    A block begins with the special tokens that the tokenizer prepends. Without any, its first token is not predicted.

    Args:
        encoder: an encoder of any task for the model, for its tokenizer and context length.
        name: shown on the progress bar.

    Raises:
        NonFiniteError: A logit is not finite.
    """
    examples = [window for block in blocks for window in windows(encoder, block)]
    losses = np.zeros(len(examples))

    def read(batch: list[int], tensors: dict[str, Any]) -> None:
        logits, targets = answer_logits(model, tensors)
        parts = zip(torch.split(logits, _ROWS), torch.split(targets, _ROWS), strict=True)
        tokens = torch.cat([functional.cross_entropy(rows, ids, reduction="none") for rows, ids in parts]).double()
        answers = torch.split(tokens, [len(examples[i].answer) for i in batch])
        losses[batch] = torch.stack([part.sum() for part in answers]).cpu().numpy()

    was_training = model.training
    model.eval()
    try:
        inference.run_examples(model, encoder, examples, read, name=name, unit="window")
    finally:
        model.train(was_training)
    if not np.isfinite(losses).all():
        raise NonFiniteError(f"the cross-entropy of {name} is not finite")
    count = sum(len(example.answer) for example in examples)
    return CrossEntropy(nats=float(losses.sum()) / count, tokens=count)
