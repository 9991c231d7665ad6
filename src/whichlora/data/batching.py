"""Which items make each optimiser step, and which of them a process takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

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
