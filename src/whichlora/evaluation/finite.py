"""Refuses logits and states that are not finite or tell nothing apart, whose arg-max would pass for a prediction.

In bf16, states that overflow in an RMS norm become zero, and all logits equal: finite, but numbers of nothing.
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
        what: names the values in the message.
        name: what is being scored, as on the progress bar.

    Raises:
        NonFiniteError: One is NaN or infinite; the message names the first item.
    """
    finite = np.isfinite(values).reshape(len(items), -1).all(1)
    if not finite.all():
        item = items[int(np.argmin(finite))]
        raise NonFiniteError(
            f"{what} of item {item.id} are not finite ({name}, {int((~finite).sum())} of {len(items)} items)"
        )


def check_labels(logits: np.ndarray[Any, Any], items: Sequence[Item], *, what: str, name: str) -> None:
    """Check the logits of each item's labels, (items, labels), as `check_finite` does.

    Raises:
        NonFiniteError: One is not finite; or all labels of every item, of several, have the same logit.
    """
    check_finite(logits, items, what=what, name=name)
    if len(items) > 1 and (logits == logits[:, :1]).all():
        raise NonFiniteError(f"{what} of all {len(items)} items are equal, so states must have overflowed ({name})")
