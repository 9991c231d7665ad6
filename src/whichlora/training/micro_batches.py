"""Micro-batches that shrink when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from whichlora.errors import MemoryExhausted
from whichlora.models.memory import fits

Item = TypeVar("Item")
MICRO_BATCH = 16
"""Most items in one forward pass of training; fewer once memory has run out. The effective batch is reached by
accumulation."""


def set_checkpointing(model: Any, *, on: bool) -> None:
    """Say whether a model computes activations again in the backward pass; nothing is done where it already is so."""
    if on != any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        # transformers renamed the method; every tested version has the older name, newer ones with a warning.
        verb = "enable" if on else "disable"
        method = getattr(model, f"activation_checkpointing_{verb}", None)
        (method or getattr(model, f"gradient_checkpointing_{verb}"))()


class MicroBatches:
    """Takes the items of one optimiser step in parts, in smaller ones once memory has run out.

    accelerate's `find_executable_batch_size`, which transformers' `auto_find_batch_size` stands on, starts training
    anew with a smaller effective batch and the weights as they have become. Here only the step is done again: its
    gradients are dropped, the random state is put back, and the sum over the parts stays the same.

    Attributes:
        size: most items in one forward pass.
        checkpointing: whether activations are computed again in the backward pass instead of being kept.
    """

    def __init__(self, model: Any, size: int) -> None:
        self._model, self.size, self.checkpointing = model, size, False

    def sum(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Tensor]) -> Tensor:
        """Return the sum of `work` over parts of `items`; `work` may change gradients and the random state alone.

        Raises:
            MemoryExhausted: not even one item fits.
        """
        state = _random_state()
        results: list[Tensor] = []

        def take_all() -> None:
            for start in range(0, len(items), self.size):
                results.append(work(items[start : start + self.size]))

        while not fits(take_all):
            self._take_less(len(items))
            results.clear()
            for parameter in self._model.parameters():
                parameter.grad = None
            _set_random_state(state)
        return torch.stack(results).sum() if results else torch.zeros((), device=self._model.device)

    def _take_less(self, n_items: int) -> None:
        tried = min(self.size, n_items)
        if tried > 1:
            self.size = tried // 2
            print(f"Out of memory with {tried} items at a time; going on with {self.size}.", file=sys.stderr)
        elif not self.checkpointing and self._model.supports_gradient_checkpointing:
            set_checkpointing(self._model, on=True)
            self.checkpointing = True
            print("Out of memory with one item; going on with gradient checkpointing.", file=sys.stderr)
        else:
            raise MemoryExhausted("one training item does not fit, even with gradient checkpointing")


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
