"""Accumulates gradients over micro-batches that shrink when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from whichlora.errors import MemoryExhausted
from whichlora.models.memory import runs_without_oom

Item = TypeVar("Item")
MICRO_BATCH = 16
"""Largest micro-batch, in items; halved whenever memory runs out."""


def set_checkpointing(model: Any, *, on: bool) -> None:
    """Turn gradient checkpointing on or off, unless it already is."""
    if on != any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        # transformers renamed the method: every tested version has the old name, but newer versions warn about it.
        verb = "enable" if on else "disable"
        method = getattr(model, f"activation_checkpointing_{verb}", None)
        (method or getattr(model, f"gradient_checkpointing_{verb}"))()


class MicroBatches:
    """Splits the items of an optimiser step into micro-batches, and into smaller ones when memory runs out.

    accelerate's `find_executable_batch_size`, on which transformers' `auto_find_batch_size` is based, restarts training
    with a smaller effective batch and with the weights trained so far. Here only the step is repeated, with the same
    effective batch: its gradients are cleared and the random state is restored.

    Attributes:
        size: items in a micro-batch.
        checkpointing: whether memory ran out so far that gradient checkpointing was turned on.
    """

    def __init__(self, model: Any, size: int) -> None:
        self._model, self.size, self.checkpointing = model, size, False

    def sum(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Tensor]) -> Tensor:
        """Return the sum of `work` over micro-batches of `items`; `work` may change only gradients and random state.

        Raises:
            MemoryExhausted: Not even one item fits.
        """
        state = _random_state()
        results: list[Tensor] = []

        def process_all() -> None:
            for start in range(0, len(items), self.size):
                results.append(work(items[start : start + self.size]))

        while not runs_without_oom(process_all):
            self._reduce_memory(len(items))
            results.clear()
            for parameter in self._model.parameters():
                parameter.grad = None
            _set_random_state(state)
        return torch.stack(results).sum() if results else torch.zeros((), device=self._model.device)

    def _reduce_memory(self, n_items: int) -> None:
        tried = min(self.size, n_items)
        if tried > 1:
            self.size = tried // 2
            print(f"Out of memory with {tried} items at a time; continuing with {self.size}.", file=sys.stderr)
        elif not self.checkpointing and self._model.supports_gradient_checkpointing:
            set_checkpointing(self._model, on=True)
            self.checkpointing = True
            print("Out of memory with one item; continuing with gradient checkpointing.", file=sys.stderr)
        else:
            raise MemoryExhausted("one training item does not fit, even with gradient checkpointing")


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
