"""Modules that compute otherwise for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched_forward(forwards: Iterable[tuple[Any, Callable[..., Any]]]) -> Iterator[None]:
    """Have modules compute by these functions in place of their class's `forward` until this is left."""
    pairs = list(forwards)
    for module, forward in pairs:
        module.forward = forward
    try:
        yield
    finally:
        for module, _ in pairs:
            del module.forward
