"""Refuses logits and states from which no prediction follows: NaN, infinite, or equal for lack of any information.

In bf16, states that overflow in an RMS norm become zero, and all logits equal and finite. In each case an arg-max would
return the first candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whichlora.data.tasks.items import Item
from whichlora.errors import NonFiniteError


def check_finite(values: np.ndarray[Any, Any], items: Sequence[Item], *, what: str, name: str) -> None:
    """Check the values of each item.

    Args:
        values: (items, ...).
        what: what the values are, for the message.
        name: what is being scored, as on the progress bar.

    Raises:
        NonFiniteError: A value is NaN or infinite; the message names the first such item.
    """
    _check(np.isfinite(values).reshape(len(items), -1).all(1), items, f"{what} of item", "are not finite", name)


def check_labels(logits: np.ndarray[Any, Any], items: Sequence[Item], *, what: str, name: str) -> None:
    """Check the logits of each item's labels, (items, labels); the other arguments are those of `check_finite`.

    Raises:
        NonFiniteError: A logit is NaN or infinite, or in every one of several items all labels have the same logit.
    """
    check_finite(logits, items, what=what, name=name)
    if min(logits.shape) > 1 and (logits == logits[:, :1]).all():
        raise NonFiniteError(f"{what} of all {len(items)} items are equal, so states must have overflowed ({name})")


def check_states(states: np.ndarray[Any, Any], items: Sequence[Item], *, name: str) -> None:
    """Check the states of each item, (items, ..., width); `name` is that of `check_finite`.

    Raises:
        NonFiniteError: A state is NaN, infinite or zero; the message names the first such item.
    """
    check_finite(states, items, what="the states", name=name)
    largest = np.abs(states).max(axis=-1).reshape(len(items), -1)
    _check((largest > 0).all(1), items, "a state of item", "is zero", name)


def _check(passed: np.ndarray[Any, Any], items: Sequence[Item], subject: str, fault: str, name: str) -> None:
    if not passed.all():
        item = items[int(np.argmin(passed))]
        raise NonFiniteError(f"{subject} {item.id} {fault} ({name}, {int((~passed).sum())} of {len(items)} items)")
