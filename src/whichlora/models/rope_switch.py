"""LongRoPE (arXiv 2402.13753): a model rotates all texts of a batch by long factors if the longest exceeds a length.

A text must have the same logits in every batch, so texts that need short and long factors are never read together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
