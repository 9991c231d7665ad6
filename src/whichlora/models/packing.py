"""Packs texts into one row of tokens without padding, in which shared prefixes are computed once.

Linear layers, norms and adapters process each token independently, so only attention depends on which tokens form a
text. Before attention the row is gathered into one padded row per text, where the tokens of a shared prefix are
repeated, and transformers' own attention function runs on these. Losses summed over texts, and their gradients, equal
those of padded batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from whichlora.data.batching import IGNORED, to_device
from whichlora.data.encoding import Encoded
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.hidden_states import StopForward
from whichlora.models.kernels.attention import MAX_MATMUL_TOKENS, causal_mask, gather_rows, matmul_attention
from whichlora.models.kernels.onednn import padding_rows

_MIN_LENGTH_RATIO = 0.75
"""Length of the shortest text of a group, relative to the longest."""
_ATTENTION_NAME = "whichlora_packed"
_FAMILIES = (
    "cohere2",
    "cwm",
    "exaone4",
    "gemma",
    "gemma3_text",
    "gpt_neox",
    "granite",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
)
"""Architectures for which a test shows that tokens interact through attention only, and which keys it reads."""
_LAYERS = {"full_attention", "sliding_attention"}
"""Layer types whose keys are all those of a text up to a token, or the last ones within the layer's window."""


@dataclass(frozen=True)
class Layout:
    """Maps the tokens of a packed row to texts.

    Attributes:
        paths: for each text, the row indices of its tokens.
        groups: row indices of texts of similar length, each (texts, longest), padded with 0.
        tokens: for each token of the row, its first index in the flattened and concatenated groups, (tokens,).
    """

    paths: list[list[int]]
    groups: list[Tensor]
    tokens: Tensor

    def to(self, device: Any) -> Layout:
        """Return a copy whose tensors are on a device."""
        return Layout(self.paths, [group.to(device) for group in self.groups], self.tokens.to(device))


def is_tested(config: Any) -> bool:
    """Return whether a model's text part is of one of `_FAMILIES`."""
    return config.get_text_config().model_type in _FAMILIES


def can_pack(model: Any) -> bool:
    """Return whether examples can be packed: a tested family, SDPA, and no layer types but those of `_LAYERS`.

    Whether texts are longer than the window of a sliding layer does not matter: `_attend` applies the window to these.
    """
    return not reason_to_pad(model)


def reason_to_pad(model: Any) -> str:
    """Return why examples cannot be packed, in words; "" if they can."""
    config = model.config.get_text_config()
    if not is_tested(config):
        return f"packing is not tested with the architecture {config.model_type}"
    if config._attn_implementation != "sdpa":
        return f"the model's attention is {config._attn_implementation}, not sdpa"
    others = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    return f"the model has layers of type {', '.join(sorted(others))}" if others else ""


def can_share_prefixes(model: Any) -> bool:
    """Return whether shared prefixes can be computed once: not with dropout, whose masks differ between texts."""
    has_dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return not has_dropout and not getattr(model.config.get_text_config(), "attention_dropout", 0)


def pack(examples: Sequence[Encoded], *, share: bool = True) -> dict[str, Any]:
    """Return `input_ids`, `position_ids` and `labels`, all (1, tokens), and their `layout`.

    With `share`, a common prefix of several prompts is stored once. The last token of a prompt is never shared, because
    it predicts the first token of the answer.
    """
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    paths: list[list[int]] = []
    successors: dict[tuple[int, int], int] = {}
    for example in examples:
        path: list[int] = []
        for position, token in enumerate(example.prompt + example.answer):
            edge = (path[-1] if path else -1, token)
            shared = share and position < len(example.prompt) - 1
            index = successors.setdefault(edge, len(ids)) if shared else len(ids)
            path.append(index)
            if index == len(ids):
                ids.append(token)
                positions.append(position)
                labels.append(IGNORED if position < len(example.prompt) else token)
        paths.append(path)
    padding = padding_rows(len(ids))  # tokens that belong to no text
    ids, positions, labels = ids + ids[-1:] * padding, positions + [0] * padding, labels + [IGNORED] * padding
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "layout": _layout(paths, len(ids)),
    }


def join(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Concatenate packed batches into one, without sharing tokens between them."""
    paths: list[list[int]] = []
    offset = 0
    for batch in batches:
        paths += [[offset + index for index in path] for path in batch["layout"].paths]
        offset += batch["input_ids"].shape[1]
    rows = {name: torch.cat([batch[name] for batch in batches], dim=1) for name in batches[0] if name != "layout"}
    return {**rows, "layout": _layout(paths, offset)}


def _layout(paths: list[list[int]], count: int) -> Layout:
    """Group texts of similar length, to limit padding in attention, whose cost is quadratic in the length."""
    groups: list[list[list[int]]] = []
    for path in sorted(paths, key=len, reverse=True):
        if not groups or len(path) < _MIN_LENGTH_RATIO * len(groups[-1][0]):
            groups.append([])
        groups[-1].append(path)
    indices = [torch.tensor([path + [0] * (len(group[0]) - len(path)) for path in group]) for group in groups]
    is_token = torch.cat([torch.arange(len(group[0])) < len(path) for group in groups for path in group])
    slots = is_token.nonzero()[:, 0]
    rows = torch.cat([group.flatten() for group in indices])[slots]
    # "amin" picks the first slot of a shared token.
    tokens = torch.full((count,), len(is_token)).scatter_reduce(0, rows, slots, "amin")
    return Layout(paths, indices, tokens.clamp(max=len(is_token) - 1))


def pack_texts(texts: Sequence[Sequence[int]], device: Any) -> dict[str, Any]:
    """Pack token sequences as inputs for inference on a device: the result of `pack` without labels."""
    inputs = to_device(pack([Encoded(list(text), []) for text in texts]), device)
    del inputs["labels"]
    return inputs


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


@contextmanager
def attention(model: Any) -> Iterator[None]:
    """Switch a model to attention within packed texts inside this context.

    The context must include the backward pass, in which gradient checkpointing repeats the forward pass.
    """
    config = model.config.get_text_config()
    previous = config._attn_implementation
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = previous


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    stop_layer: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each text, as transformers' SDPA function does.

    Args:
        query, key, value: (1, heads, tokens, width).
        sliding_window: number of keys that a token attends to, its own included, in a layer with a window. transformers
            masks the others itself; here only groups of longer texts need a mask.
        stop_layer: block at which the forward pass stops, when only the key-value cache is needed, which by then
            contains this block's keys and values.

    Returns:
        The output, (1, tokens, heads, width), and None in place of attention weights.
    """
    if module.layer_idx == stop_layer:
        raise StopForward
    heads = [states.shape[1] for states in (query, key, value)]
    flat = [states[0].transpose(0, 1).flatten(1) for states in (query, key, value)]
    # On a CPU torch's SDPA is slower in bf16 than in fp32.
    is_cpu_bf16 = query.device.type == "cpu" and value.dtype == torch.bfloat16
    # An embedding lookup has the fastest backward pass on a CPU for repeated indices.
    gathered = [
        gather_rows(s, layout.groups) if is_cpu_bf16 else [embedding(g, s) for g in layout.groups] for s in flat
    ]
    outputs = []
    with torch.autocast("cpu", enabled=False) if is_cpu_bf16 else nullcontext():
        for group in zip(*gathered, strict=True):
            padded = [states.unflatten(2, (n, -1)) for states, n in zip(group, heads, strict=True)]
            tokens = padded[0].shape[1]
            window = sliding_window if sliding_window and sliding_window < tokens else None
            if is_cpu_bf16 and tokens <= MAX_MATMUL_TOKENS and not kwargs.get("dropout"):
                output = matmul_attention(*padded, scaling=scaling, window=window)
            else:
                padded = [(states.float() if is_cpu_bf16 else states).transpose(1, 2) for states in padded]
                mask = None if window is None else causal_mask(tokens, window, query.device)
                output = sdpa_attention_forward(module, *padded, mask, is_causal=True, scaling=scaling, **kwargs)[0]
            outputs.append(output.flatten(0, 1).flatten(1))
    output = embedding(layout.tokens, torch.cat(outputs))  # its backward pass is faster than that of indexing
    return output.view(1, len(layout.tokens), heads[0], -1).to(value.dtype), None


AttentionInterface.register(_ATTENTION_NAME, _attend)
