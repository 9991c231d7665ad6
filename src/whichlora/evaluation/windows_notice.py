"""Says before long contexts are scored how many windows they have, and about how long that takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from whichlora.evaluation.inference import BATCH_ITEMS, BATCH_TOKENS

ANNOUNCED = 32
"""Number of windows, beyond one for each item, from which scoring is announced."""
_STEPS = 4
"""Tokens that are generated to measure the time of one."""
_announced: set[str] = set()


def announce(
    lengths: Sequence[int], items: int, answer_tokens: int, *, name: str, continue_longest: Callable[[int], object]
) -> None:
    """Print one line if contexts have many windows, once for each set of items.

    The time of a window is that of reading the longest prompt twice (for its answer, and for the answer's likelihood),
    and answers have all their tokens, so that the estimate is rather too long. It is linear in the number of windows.

    Args:
        lengths: tokens of the prompt of each window.
        items: number of items that they belong to.
        continue_longest: continues the longest prompt by a number of tokens.
    """
    about = f"{name}: {items} items have {len(lengths)} windows of at most {max(lengths, default=0)} tokens"
    if len(lengths) - items < ANNOUNCED or about in _announced:
        return
    _announced.add(about)
    seconds = []
    for tokens in (1, 1 + _STEPS):  # the first one is read with whatever is prepared on a first call
        start = time.perf_counter()
        continue_longest(tokens)
        seconds.append(time.perf_counter() - start)
    step = max(0.0, seconds[1] - seconds[0]) / _STEPS
    batches = -(-len(lengths) // max(1, min(BATCH_ITEMS, BATCH_TOKENS // max(lengths))))
    total = 2 * len(lengths) * seconds[0] + batches * answer_tokens * step
    shown = f"{total / 60:.0f} minutes" if total >= 90 else f"{total:.0f} seconds"
    print(f"{about}; scoring takes about {shown}.", file=sys.stderr)
