"""Rows of tokens into which texts are packed, and how their tokens form the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whichlora.data.batching import IGNORED, to_device
from whichlora.data.encoding import Encoded
from whichlora.models.kernels.onednn import padding_rows

_MIN_LENGTH_RATIO = 0.75
"""Length of the shortest text of a group, relative to the longest."""


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
