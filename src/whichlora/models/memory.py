"""Repeats work in smaller batches when the accelerator runs out of memory, with the same results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from whichlora.data.batching import by_length
from whichlora.errors import MemoryExhausted


class Divide(Protocol):
    """Divides the positions of items into batches, by the lengths of the items."""

    def __call__(self, lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]: ...


def runs_without_oom(work: Callable[[], None]) -> bool:
    """Run `work` and return True; if the accelerator runs out of memory, free the memory and return False."""
    try:
        work()
    except torch.OutOfMemoryError:
        pass  # freed below: inside this block the traceback still refers to the tensors
    else:
        return True
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def freeze_gc() -> None:
    """Freeze existing objects (gc.freeze) so that later collections skip them; call it before loading a model.

    Each training run triggers a collection, which visits every object: half a second for the imported modules and the
    items of the packaged task, more than a small training run takes.
    """
    gc.collect()
    gc.freeze()


def in_batches(
    lengths: Sequence[int],
    work: Callable[[list[int]], None],
    *,
    max_tokens: int,
    max_items: int,
    divide: Divide = by_length,
) -> None:
    """Call `work` with batches of item positions, each item once; halve the batches when memory runs out.

    Args:
        lengths: number of tokens of each item.
        work: processes a batch; it must be safe to repeat.
        divide: divides positions into batches of at most `max_items` items and `max_tokens` tokens.

    Raises:
        MemoryExhausted: a batch of one item does not fit into memory.
    """
    remaining = list(range(len(lengths)))
    while remaining:
        done: set[int] = set()
        for part in divide([lengths[i] for i in remaining], max_tokens=max_tokens, max_items=max_items):
            batch = [remaining[k] for k in part]
            if not runs_without_oom(lambda batch=batch: work(batch)):  # type: ignore[misc]
                if len(batch) == 1:
                    raise MemoryExhausted("one item does not fit")
                max_tokens = sum(lengths[i] for i in batch) // 2
                break
            done.update(batch)
        remaining = [i for i in remaining if i not in done]
