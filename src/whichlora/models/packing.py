"""Texts as one row of tokens without padding, in which what several begin with is read once.

Linear layers, norms and adapters take each token by itself, so only attention has to know which tokens belong together.
It is the library's own, over one row a text, to which shared tokens are handed as often as they are shared. Sums over
texts, and their gradients, are those of padded texts.
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
from whichlora.models.kernels.onednn import padding_rows

ALIKE = 0.75
"""Texts of a group are at least this long, beside its longest."""
_SHORT = 256
"""Up to so many tokens a text the weights of attention in bf16 take about the memory of the states in fp32, or less."""
_NAME = "whichlora_packed"
_FAMILIES = ("gemma", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Architectures for which a test shows that nothing but attention looks from one token to another."""


@dataclass(frozen=True)
class Layout:
    """Which tokens of a row belong together.

    Attributes:
        paths: where in the row the tokens of each text stand.
        groups: the same of texts of similar length, each (texts, longest), with 0 for padding.
        tokens: (tokens,): where in the groups, flattened one after the other, each token of the row stands.
    """

    paths: list[list[int]]
    groups: list[Tensor]
    tokens: Tensor

    def to(self, device: Any) -> Layout:
        """Move it."""
        return Layout(self.paths, [group.to(device) for group in self.groups], self.tokens.to(device))


def can_pack(model: Any) -> bool:
    """Say whether a model's examples can be packed: its family is known, and its layers attend to all that came."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None)
    known = config.model_type in _FAMILIES and config._attn_implementation == "sdpa"
    return known and layers == {"full_attention"} and not windowed


def can_share(model: Any) -> bool:
    """Say whether what texts begin with can be read once: not where dropout is drawn for each of them."""
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return not drops and not getattr(model.config.get_text_config(), "attention_dropout", 0)


def pack(examples: Sequence[Encoded], *, share: bool = True) -> dict[str, Any]:
    """Return `input_ids`, `position_ids` and `labels`, all (1, tokens), and their `layout`.

    With `share` a token of a prompt stands there once for all examples that are alike up to it. The last token of a
    prompt, which predicts the answer's first, is each example's own.
    """
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    paths: list[list[int]] = []
    after: dict[tuple[int, int], int] = {}
    for example in examples:
        path: list[int] = []
        for position, token in enumerate(example.prompt + example.answer):
            step = (path[-1] if path else -1, token)
            shared = share and position < len(example.prompt) - 1
            place = after.setdefault(step, len(ids)) if shared else len(ids)
            path.append(place)
            if place == len(ids):
                ids.append(token)
                positions.append(position)
                labels.append(IGNORED if position < len(example.prompt) else token)
        paths.append(path)
    more = padding_rows(len(ids))  # to which no text belongs
    ids, positions, labels = ids + ids[-1:] * more, positions + [0] * more, labels + [IGNORED] * more
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "layout": _layout(paths, len(ids)),
    }


def join(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one packed batch of several, one after the other, that share nothing."""
    paths: list[list[int]] = []
    before = 0
    for batch in batches:
        paths += [[before + place for place in path] for path in batch["layout"].paths]
        before += batch["input_ids"].shape[1]
    rows = {name: torch.cat([batch[name] for batch in batches], dim=1) for name in batches[0] if name != "layout"}
    return {**rows, "layout": _layout(paths, before)}


def _layout(paths: list[list[int]], count: int) -> Layout:
    """Group texts of similar length, so that attention, which grows with the square of the length, is padded little."""
    groups: list[list[list[int]]] = []
    for path in sorted(paths, key=len, reverse=True):
        if not groups or len(path) < ALIKE * len(groups[-1][0]):
            groups.append([])
        groups[-1].append(path)
    places = [torch.tensor([path + [0] * (len(group[0]) - len(path)) for path in group]) for group in groups]
    real = torch.cat([torch.arange(len(group[0])) < len(path) for group in groups for path in group])
    where = real.nonzero()[:, 0]
    filled = torch.cat([group.flatten() for group in places])[where]
    tokens = torch.full((count,), len(real)).scatter_reduce(0, filled, where, "amin")  # of equal places the first
    return Layout(paths, places, tokens.clamp(max=len(real) - 1))


def pack_texts(texts: Sequence[Sequence[int]], device: Any) -> dict[str, Any]:
    """Return what a model reads texts from of which nothing is learnt: as `pack`, without labels."""
    inputs = to_device(pack([Encoded(list(text), []) for text in texts]), device)
    del inputs["labels"]
    return inputs


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values with room for those of tokens to come, for which the library's layer copies all of them."""

    def __init__(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        texts, heads, tokens, width = keys.shape
        self._whole = [states.new_empty(texts, heads, tokens + room, width) for states in (keys, values)]
        self.update(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in those of further tokens, and return all, both (texts, heads, tokens, width)."""
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        for whole, states in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, before:after] = states
        self.keys, self.values = (whole[:, :, :after] for whole in self._whole)
        return self.keys, self.values


@torch.no_grad()
def read_ahead(model: Any, texts: Sequence[Sequence[int]], *, room: int) -> DynamicCache:
    """Return keys and values of texts but for their last tokens, padded on the left: what `generate` goes on from.

    There is room for `room` more tokens, of which the last token of each text is one.
    """
    inputs = pack_texts([text[:-1] for text in texts], model.device)
    row, cache = DynamicCache(), DynamicCache()
    last = model.config.get_text_config().num_hidden_layers - 1
    with attention(model), suppress(StopForward):
        # Not through PEFT's forward, which accelerate may have put under autocast: `generate` does not go that way.
        unwrap_peft(model)(**inputs, past_key_values=row, use_cache=True, logits_to_keep=1, until=last)
    longest = max(len(text) for text in texts) - 1
    paths = inputs["layout"].paths
    places = torch.tensor([[0] * (longest - len(path)) + path for path in paths], device=model.device)
    for layer in row.layers:
        keys, values = (states[0][:, places].transpose(0, 1) for states in (layer.keys, layer.values))
        cache.layers.append(_Roomy(keys, values, room=room))
        layer.keys = layer.values = None  # or they would be there twice
    return cache


@contextmanager
def attention(model: Any) -> Iterator[None]:
    """Have a model attend within packed examples, in forward passes and in their gradients, until this is left."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    until: int | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """Attend as the library's function does, within each text.

    Args:
        query, key, value: (1, heads, tokens, width).
        until: the block of which nothing but its keys and values is asked for; they are in the cache by now.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    if module.layer_idx == until:
        raise StopForward
    heads = [states.shape[1] for states in (query, key, value)]
    flat = [states[0].transpose(0, 1).flatten(1) for states in (query, key, value)]
    # On a CPU torch's attention takes longer in bf16 than in fp32.
    narrow = query.device.type == "cpu" and value.dtype == torch.bfloat16
    if narrow and torch.is_grad_enabled():  # for the sums of gradients of what several texts share
        flat = [states.float() for states in flat]

    def rows(states: Tensor, heads: int, places: Tensor) -> Tensor:
        # An embedding, because the sum over equal places in its gradient is the quickest of torch's on a CPU.
        return embedding(places, states).view(*places.shape, heads, -1).transpose(1, 2)

    parts = []
    with torch.autocast("cpu", enabled=False) if narrow else nullcontext():
        for group in layout.groups:
            own = [rows(states, n, group) for states, n in zip(flat, heads, strict=True)]
            if narrow and group.shape[1] <= _SHORT and not how.get("dropout"):
                found = _products(*own, scaling=scaling)
            else:
                own = [states.float() for states in own] if narrow else own
                found = sdpa_attention_forward(module, *own, None, is_causal=True, scaling=scaling, **how)[0]
            parts.append(found.flatten(0, 1).flatten(1))
    found = embedding(layout.tokens, torch.cat(parts))  # whose gradient is quicker than that of an index
    return found.view(1, len(layout.tokens), heads[0], -1).to(value.dtype), None


def _products(query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None) -> Tensor:
    """Return causal attention, (texts, tokens, heads, width), as two products of bf16 and a softmax between them.

    With its gradient and without, these are the quickest on a CPU. Several heads of `query` may have one of `key` and
    `value`.
    """
    texts, heads, tokens, width = query.shape
    shared = key.shape[1]
    query = query * (width**-0.5 if scaling is None else scaling)
    query, key, value = (states.to(torch.bfloat16) for states in (query, key, value))
    scores = query.reshape(texts, shared, -1, width) @ key.transpose(2, 3)
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weights = scores.view(texts, heads, tokens, tokens).masked_fill_(later, -torch.inf).softmax(-1)
    found = weights.view(texts, shared, -1, tokens) @ value
    return found.view(texts, heads, tokens, width).transpose(1, 2)


AttentionInterface.register(_NAME, _attend)
