"""Examples as one row of tokens without padding, in which what all prompts begin with is read once.

Linear layers, norms and adapters take each token by itself, so only attention has to know which tokens belong together.
It is the library's own, over one row an example, and gives each example the keys and values of the shared beginning.
Sums over examples, and their gradients, are those of padded examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from whichlora.encoding import IGNORED, Encoded

LEAST_SAVED = 0.1
"""The beginning is shared where that saves such a part of the tokens: below, attention without a mask is faster."""
_NAME = "whichlora_packed"
_FAMILIES = ("gemma", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Architectures for which a test shows that nothing but attention looks from one token to another."""


@dataclass(frozen=True)
class Layout:
    """Which tokens of a row belong together.

    Attributes:
        prefix: tokens at the row's beginning that come before each example.
        places: (examples, longest): where in the row each example's tokens stand; 0 for padding.
        tokens: (tokens after the prefix,): where among the flattened `places` each token stands.
        mask: (1, 1, longest, prefix + longest), which of them an example's token sees; None if all before it.
    """

    prefix: int
    places: Tensor
    tokens: Tensor
    mask: Tensor | None

    def to(self, device: Any) -> Layout:
        """Move it."""
        mask = None if self.mask is None else self.mask.to(device)
        return Layout(self.prefix, self.places.to(device), self.tokens.to(device), mask)


def can_pack(model: Any) -> bool:
    """Say whether a model's examples can be packed: its family is known, and its layers attend to all that came."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None)
    known = config.model_type in _FAMILIES and config._attn_implementation == "sdpa"
    return known and layers == {"full_attention"} and not windowed


def can_share(model: Any) -> bool:
    """Say whether a prefix can be read once for several examples: not where dropout is drawn for each of them."""
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return not drops and not getattr(model.config.get_text_config(), "attention_dropout", 0)


def pack(examples: Sequence[Encoded], *, share: bool = True) -> dict[str, Any]:
    """Return `input_ids`, `position_ids` and `labels`, all (1, tokens), and their `layout`.

    With `share` the tokens that all prompts begin with come first and once, where that is worth it. The last token of a
    prompt, which predicts the answer's first, is never among them.
    """
    prefix = _shared(examples) if share else 0
    rests = [(example.prompt + example.answer)[prefix:] for example in examples]
    longest = max(map(len, rests))
    ids, positions, labels = examples[0].prompt[:prefix], list(range(prefix)), [IGNORED] * prefix
    places = torch.zeros((len(rests), longest), dtype=torch.long)
    tokens: list[int] = []
    for row, (example, rest) in enumerate(zip(examples, rests, strict=True)):
        places[row, : len(rest)] = torch.arange(len(ids), len(ids) + len(rest))
        tokens += range(row * longest, row * longest + len(rest))
        ids = ids + rest
        positions += range(prefix, prefix + len(rest))
        labels += [IGNORED] * (len(rest) - len(example.answer)) + example.answer
    mask = None
    if prefix:
        mask = torch.ones((1, 1, longest, prefix + longest), dtype=torch.bool).tril(diagonal=prefix)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "layout": Layout(prefix, places, torch.tensor(tokens), mask),
    }


def _shared(examples: Sequence[Encoded]) -> int:
    """Return how many tokens the prompts begin with alike; 0 where reading them once saves little."""
    prompts = [example.prompt[:-1] for example in examples]
    alike = 0
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1:
            break
        alike += 1
    return alike if alike * (len(prompts) - 1) >= LEAST_SAVED * sum(map(len, examples)) else 0


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
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, layout: Layout, **how: Any
) -> tuple[Tensor, None]:
    """Attend as the library's function does, within each example.

    Args:
        query, key, value: (1, heads, tokens, width).

    Returns:
        (1, tokens, heads, width), and no weights.
    """

    def rows(states: Tensor) -> Tensor:
        return states[0][:, layout.places].transpose(0, 1)

    keys, values = rows(key), rows(value)
    parts = []
    if layout.prefix:
        first = [states[:, :, : layout.prefix] for states in (query, key, value)]
        parts.append(sdpa_attention_forward(module, *first, None, is_causal=True, **how)[0])
        keys = torch.cat([first[1].expand(len(keys), -1, -1, -1), keys], dim=2)
        values = torch.cat([first[2].expand(len(values), -1, -1, -1), values], dim=2)
    own = sdpa_attention_forward(module, rows(query), keys, values, layout.mask, is_causal=layout.mask is None, **how)[
        0
    ]
    parts.append(own.flatten(0, 1)[layout.tokens][None])
    return torch.cat(parts, dim=1), None


AttentionInterface.register(_NAME, _attend)
