"""Groups encoded items into batches for training and scoring."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import Sampler

from whichlora.data.encoding import Encoded

BUCKET_BATCHES = 20
"""Number of batches per bucket; sorting by length within buckets saves padding and keeps the order random."""


class BucketBatches(Sampler[list[int]]):
    """Samples batches of items of similar length, as positions in `lengths`, reshuffled each epoch.

    Attributes:
        epoch: returns the current epoch; called at the start of each pass.
        share: (rank, world size): each rank gets every world-size-th position of a batch, starting at its rank, so that
            a step uses the same items with any number of processes.
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
        rank, world_size = self.share
        for batch in self._batches():
            yield batch[rank::world_size]

    def _batches(self) -> list[list[int]]:
        rng = random.Random(f"{self.seed} {self.epoch()}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        # The remainder, which forms the last batch, is set apart before sorting, so that it is random.
        whole = len(order) - len(order) % self.batch_size
        window = self.batch_size * BUCKET_BATCHES
        batches = []
        for start in range(0, whole, window):
            bucket = sorted(order[start : min(start + window, whole)], key=lambda i: self.lengths[i])
            batches += [bucket[k : k + self.batch_size] for k in range(0, len(bucket), self.batch_size)]
        rng.shuffle(batches)
        return [*batches, order[whole:]] if order[whole:] else batches


IGNORED = -100
"""Label of positions without a loss, as in PyTorch's cross-entropy."""


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix of prompts without their last token, which predicts the answer."""
    before = [prompt[:-1] for prompt in prompts]
    columns = enumerate(zip(*before, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, before)))


def collate(examples: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both of shape (items, longest), padded on the right.

    No attention mask is needed: under causal attention no position sees the padding after it.
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
    """Yield batches of positions of similar length, longest first, so that an out-of-memory error occurs at the start.

    `max_tokens` limits the padded size of a batch; a longer item forms a batch alone.
    """
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
    """Yield batches of consecutive positions; `max_tokens` limits the sum of their lengths (no padding).

    A longer item forms a batch alone.
    """
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
    """Return positions sorted by token ids, and the number of tokens of each that are not shared with the previous."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].prompt, examples[i].answer))
    prompts: list[list[int]] = [[], *(examples[i].prompt for i in order)]
    shared = [common_prefix_length(neighbours) for neighbours in pairwise(prompts)]
    return order, [len(examples[i]) - common for i, common in zip(order, shared, strict=True)]


def to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """Return the batch with all tensors moved to `device`."""
    return {name: value.to(device) for name, value in batch.items()}
