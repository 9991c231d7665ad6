"""Which items make each optimiser step, and which of them a process takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import Sampler

from whichlora.data.encoding import Encoded

BUCKET_BATCHES = 20
"""Batches are cut from so many batches' items sorted by length: little padding, and still a shuffle."""


class BucketBatches(Sampler[list[int]]):
    """Batches of positions of similar length, in an order that is seeded anew each epoch.

    Attributes:
        epoch: tells the epoch when a pass over the batches begins.
        share: (index, count): every count-th position of each batch from the index-th on is yielded. The batches are
            the same for every count, so any number of processes takes the same items in a step.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        epoch: Callable[[], int] = lambda: 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch, self.share = lengths, batch_size, seed, epoch, share

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        index, count = self.share
        for batch in self._batches():
            yield batch[index::count]

    def _batches(self) -> list[list[int]]:
        rng = random.Random(f"{self.seed} {self.epoch()}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        # The odd items form the epoch's last batch, drawn at random so that it is not always the shortest.
        whole = len(order) - len(order) % self.batch_size
        window = self.batch_size * BUCKET_BATCHES
        batches = []
        for start in range(0, whole, window):
            bucket = sorted(order[start : min(start + window, whole)], key=lambda i: self.lengths[i])
            batches += [bucket[k : k + self.batch_size] for k in range(0, len(bucket), self.batch_size)]
        rng.shuffle(batches)
        return [*batches, order[whole:]] if order[whole:] else batches


IGNORED = -100
"""The label of a position that is not learnt."""


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, not counting the last of any, which predicts the answer."""
    before = [prompt[:-1] for prompt in prompts]
    columns = enumerate(zip(*before, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, before)))


def collate(examples: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both (items, longest), padded on the right.

    No attention mask: under causal attention no real position sees the padding after it.
    """
    longest = max(map(len, examples))
    ids = torch.full((len(examples), longest), pad)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example)
        ids[row, :end] = torch.tensor(example.prompt + example.answer)
        labels[row, start:end] = torch.tensor(example.answer)
    return {"input_ids": ids, "labels": labels}


def by_length(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]:
    """Yield batches of positions of similar length, longest first, so that memory runs out at once or not at all."""
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (longest * (len(batch) + 1) > max_tokens or len(batch) == max_items):
            yield batch
            batch = []
        if not batch:
            longest = lengths[position]
        batch.append(position)
    if batch:
        yield batch


def in_order(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]:
    """Yield batches of neighbouring positions, whose lengths are added up."""
    batch: list[int] = []
    total = 0
    for position, length in enumerate(lengths):
        if batch and (total + length > max_tokens or len(batch) == max_items):
            yield batch
            batch, total = [], 0
        batch.append(position)
        total += length
    if batch:
        yield batch


def sorted_by_ids(examples: Sequence[Encoded]) -> tuple[list[int], list[int]]:
    """Return positions sorted by token ids, and how many tokens of each example its neighbour before does not share."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].prompt, examples[i].answer))
    prompts: list[list[int]] = [[], *(examples[i].prompt for i in order)]
    shared = [common_beginning(neighbours) for neighbours in pairwise(prompts)]
    return order, [len(examples[i]) - common for i, common in zip(order, shared, strict=True)]


def to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """Move a batch."""
    return {name: value.to(device) for name, value in batch.items()}
