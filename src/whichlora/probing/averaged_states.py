"""Averages the hidden states of texts over their tokens, at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whichlora.data.batching import by_length
from whichlora.data.encoding import word_tokens
from whichlora.errors import NonFiniteError
from whichlora.models.hidden_states import pad_right, visit_hidden_states
from whichlora.models.memory import in_batches
from whichlora.models.pooling import mean_over_tokens
from whichlora.models.rope_switch import divided_by_side
from whichlora.probing.partial_results import Arrays

if TYPE_CHECKING:
    from whichlora.probing.probed_model import ProbedModel

BATCH_TOKENS = 2048


def averages(probed: ProbedModel, model: Any, texts: Sequence[str], first_token: str) -> Arrays:
    """Return the averaged states of texts, (texts, width) for each layer, named `layer-1` (the embedding) and so on.

    Args:
        model: the loaded model of `probed`.
        first_token: "drop" or "keep" the first token in the average.

    Raises:
        NonFiniteError: a state is not finite; the message names the text.
    """
    sequences = [word_tokens(probed.plan.tokenizer, text) for text in texts]
    found: dict[str, np.ndarray[Any, Any]] = {}
    start = 1 if first_token == "drop" else 0

    def process(batch: list[int]) -> None:
        lengths = torch.tensor([len(sequences[b]) for b in batch], device=model.device)

        def store(layer: int, states: Tensor) -> None:
            mean = mean_over_tokens(states, lengths, start)
            rows = found.setdefault(f"layer{layer}", np.empty((len(sequences), states.shape[2]), np.float32))
            rows[batch] = mean.cpu().numpy()

        with torch.inference_mode():
            visit_hidden_states(
                model, probed.plan.shape.blocks, pad_right([sequences[b] for b in batch], model.device), store
            )

    in_batches(
        [len(s) for s in sequences],
        process,
        divide=divided_by_side(by_length, model),
        max_tokens=BATCH_TOKENS,
        max_items=len(sequences),
    )
    for name, rows in found.items():
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            raise NonFiniteError(f"the states of {texts[int(np.argmin(finite))]!r} at {name} are not finite")
    return found
