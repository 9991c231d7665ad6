"""The key-value cache of packed prompts, for `generate` to continue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.hidden_states import StopForward
from whichlora.models.packing.rows import pack_texts
from whichlora.models.packing.switch import attention


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Key-value cache of a layer with preallocated space; transformers' layer copies the whole cache for each token."""

    def __init__(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        texts, heads, tokens, width = keys.shape
        self._storage = [states.new_empty(texts, heads, tokens + room, width) for states in (keys, values)]
        self.update(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens and return all of them, both (texts, heads, tokens, width)."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for storage, states in zip(self._storage, (key_states, value_states), strict=True):
            storage[:, :, start:end] = states
        self.keys, self.values = (storage[:, :, :end] for storage in self._storage)
        return self.keys, self.values


@torch.no_grad()
def prefill(model: Any, texts: Sequence[Sequence[int]], *, room: int) -> DynamicCache:
    """Return the key-value cache of texts without their last tokens, padded on the left, for `generate` to continue.

    Space for `room` more tokens is preallocated, the last token of each text included.
    """
    inputs = pack_texts([text[:-1] for text in texts], model.device)
    packed_cache, cache = DynamicCache(), DynamicCache()
    last = model.config.get_text_config().num_hidden_layers - 1
    with attention(model), suppress(StopForward):
        # Not through PEFT's forward, which accelerate may have wrapped in autocast, because `generate` bypasses it too.
        unwrap_peft(model)(**inputs, past_key_values=packed_cache, use_cache=True, logits_to_keep=1, stop_layer=last)
    longest = max(len(text) for text in texts) - 1
    paths = inputs["layout"].paths
    indices = torch.tensor([[0] * (longest - len(path)) + path for path in paths], device=model.device)
    for layer in packed_cache.layers:
        keys, values = (states[0][:, indices].transpose(0, 1) for states in (layer.keys, layer.values))
        cache.layers.append(_PreallocatedLayer(keys, values, room=room))
        layer.keys = layer.values = None  # free the packed states
    return cache
