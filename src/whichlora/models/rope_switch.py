"""LongRoPE (arXiv 2402.13753): a model rotates all texts of a batch by long factors if the longest exceeds a length.

A text must have the same logits in every batch, so texts that need short and long factors are never read together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whichlora.models.memory import Divide


def switch_length(config: Any) -> int | None:
    """Return the number of tokens up to which a model uses the short factors; None for a model without LongRoPE."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, Mapping))]  # one for all layers, or one a type
    for parameters in kinds:
        if parameters.get("rope_type") == "longrope":
            length = parameters.get("original_max_position_embeddings")
            return int(length or getattr(text, "original_max_position_embeddings", text.max_position_embeddings))
    return None


def sides(lengths: Sequence[int], switch: int | None) -> list[list[int]]:
    """Return the positions of texts by side of the switch, of short texts first; sides without texts are left out."""
    short = [i for i, length in enumerate(lengths) if switch is None or length <= switch]
    long = [i for i, length in enumerate(lengths) if switch is not None and length > switch]
    return [side for side in (short, long) if side]


def divided_by_side(divide: Divide, model: Any) -> Divide:
    """Return a function that divides texts into batches as `divide` does, and these further by side of the switch.

    The lengths that it is called with must be those of the texts.
    """
    switch = switch_length(model.config)

    def divide_further(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]:
        for batch in divide(lengths, max_tokens=max_tokens, max_items=max_items):
            for side in sides([lengths[i] for i in batch], switch):
                yield [batch[k] for k in side]

    return divide_further
