"""Computes the pooled hidden states of words, or sentences, and their translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from whichlora.data.batching import by_length
from whichlora.data.encoding import Encoder
from whichlora.data.tasks.items import Item
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation.inference import run_batched
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.loading import blocks_of
from whichlora.models.pooling import pooled_states, states_at_sites
from whichlora.models.rope_switch import divided_by_side


def word_states(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> np.ndarray[Any, Any]:
    """Return the pooled states of each word and its translation, (`SITES`, items, 2, width)."""

    def compute(model: Any, blocks: str, sequences: list[list[int]]) -> Tensor:
        return states_at_sites(model, blocks, sequences, pooling)

    return _states(model, encoder, items, compute, name=name, unit="word")


def layer_states(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> np.ndarray[Any, Any]:
    """Return the pooled states of each sentence and its translation at one layer, (items, 2, width)."""

    def compute(model: Any, blocks: str, sequences: list[list[int]]) -> Tensor:
        return pooled_states(model, blocks, sequences, pooling)[None]

    found: np.ndarray[Any, Any] = _states(model, encoder, items, compute, name=name, unit="sentence")[0]
    return found


def _states(
    model: Any,
    encoder: Encoder,
    items: Sequence[Item],
    compute: Callable[[Any, str, list[list[int]]], Tensor],
    *,
    name: str,
    unit: str,
) -> np.ndarray[Any, Any]:
    """Return the states that `compute` returns for batches of token sequences, (sites, items, 2, width)."""
    pairs = [encoder.pair(item) for item in items]
    sequences = [ids for pair in pairs for ids in (pair.word, pair.translation)]
    blocks = blocks_of(unwrap_peft(model))
    states_of: dict[int, np.ndarray[Any, Any]] = {}

    def read(batch: list[int]) -> None:
        states = compute(model, blocks, [sequences[i] for i in batch]).cpu().numpy()
        states_of.update({i: states[:, row] for row, i in enumerate(batch)})

    lengths = [len(s) for s in sequences]
    run_batched(lengths, read, name=name, unit=unit, divide=divided_by_side(by_length, model))
    stacked = np.stack([states_of[i] for i in range(len(sequences))], axis=1)
    return stacked.reshape(len(stacked), len(items), 2, -1)
