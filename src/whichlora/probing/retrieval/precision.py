"""Average precision of retrieval as in LAReQA's code, and its expectation for a random order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

DEPTH = 20
"""Number of retrieved sentences that count: mAP@20."""

Array = np.ndarray[Any, Any]


def average_precision(relevant: Collection[int], ranked: Sequence[int] | Array) -> float:
    """Return the average precision of the first `DEPTH` retrieved: the sum of the precision at each hit, divided by the
    number of relevant ones, which counts at most `DEPTH`.
    """
    hits, total = 0, 0.0
    for position, candidate in enumerate(ranked[:DEPTH], start=1):
        if int(candidate) in relevant:
            hits += 1
            total += hits / position
    return total / min(len(relevant), DEPTH)


def expected_precision(relevant: int, candidates: int) -> float:
    """Return the expectation of `average_precision` if the candidates are in a random order."""
    depth = min(DEPTH, candidates)
    share, others = relevant / candidates, (relevant - 1) / max(1, candidates - 1)
    total = sum(share * (1 + (position - 1) * others) / position for position in range(1, depth + 1))
    return total / min(relevant, DEPTH)


def best(questions: Array, candidates: Array) -> Array:
    """Return the positions of the `DEPTH` candidates with the highest inner product, best first, (questions, depth)."""
    scores = questions @ candidates.T
    depth = min(DEPTH, scores.shape[1])
    top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
