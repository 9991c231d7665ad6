"""Temporary monkey patching of modules' `forward`, used by the other kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched_forward(forwards: Iterable[tuple[Any, Callable[..., Any]]]) -> Iterator[None]:
    """Replace the `forward` of modules within this context, given pairs of module and function.

    The function becomes an attribute of the instance, so the class stays unchanged and hooks still run.
    """
    pairs = list(forwards)
    for module, forward in pairs:
        module.forward = forward
    try:
        yield
    finally:
        for module, _ in pairs:
            del module.forward
