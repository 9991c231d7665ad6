"""What is done when the accelerator's memory runs out: less at a time. What is computed stays the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from whichlora.data.batching import by_length
from whichlora.errors import MemoryExhausted


class Divide(Protocol):
    """What puts positions into batches, by the lengths of what they stand for."""

    def __call__(self, lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]: ...


def fits(work: Callable[[], None]) -> bool:
    """Do `work`; False, with what it took given back, if the accelerator's memory did not suffice."""
    try:
        work()
    except torch.OutOfMemoryError:
        pass  # only after this block does the traceback let go of the tensors
    else:
        return True
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def freeze_gc() -> None:
    """Take what is there by now out of the garbage collector's sight, to be called before a model is loaded.

    Each training has the collector called, which goes through every object: half a second for the modules and the items
    of the packaged task, more than a small training takes.
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
    """Call `work` with positions until each was in a batch; batches become smaller on want of memory.

    Raises:
        MemoryExhausted: not even one item fits.
    """
    left = list(range(len(lengths)))
    while left:
        done: set[int] = set()
        for part in divide([lengths[i] for i in left], max_tokens=max_tokens, max_items=max_items):
            batch = [left[k] for k in part]
            if not fits(lambda batch=batch: work(batch)):  # type: ignore[misc]
                if len(batch) == 1:
                    raise MemoryExhausted("one item does not fit")
                max_tokens = sum(lengths[i] for i in batch) // 2
                break
            done.update(batch)
        left = [i for i in left if i not in done]
