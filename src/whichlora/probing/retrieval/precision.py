"""Average precision of retrieval as in LAReQA's code, and its expectation for a random order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

DEPTH = 20
"""Number of retrieved sentences that count: mAP@20."""

Array = np.ndarray[Any, Any]


def average_precision(relevant: Collection[int], groups: Iterable[Sequence[int] | Array]) -> float:
    """Return the average precision of the first `DEPTH` retrieved: the sum of the precision at each hit, divided by the
    number of relevant ones, which counts at most `DEPTH`.

    Args:
        relevant: the right candidates.
        groups: candidates, best first, in groups of those that are tied, as from `ranking.tied_groups`. The result is
            the expectation over their random orders.
    """
    counts = ((len(group), sum(int(candidate) in relevant for candidate in group)) for group in groups)
    return _precision(counts) / min(len(relevant), DEPTH)


def expected_precision(relevant: int, candidates: int) -> float:
    """Return the expectation of `average_precision` if the candidates are in a random order."""
    return _precision([(candidates, relevant)]) / min(relevant, DEPTH)


def _precision(counts: Iterable[tuple[int, int]]) -> float:
    """Return the expected sum of the precision at each hit, from the size and the number of hits of each group."""
    before, hits, total = 0, 0, 0.0
    for size, right in counts:
        for place in range(min(size, DEPTH - before) if right else 0):
            earlier = hits + place * (right - 1) / max(1, size - 1)
            total += right / size * (earlier + 1) / (before + place + 1)
        before, hits = before + size, hits + right
        if before >= DEPTH:
            break
    return total
