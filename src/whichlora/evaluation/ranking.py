"""Ranks with ties: a retrieval measure is its expectation over random orders of equally similar candidates.

Retrieval scores of states that are all alike are therefore those of chance. Without ties they would depend on rounding,
and counting only the more similar candidates would score 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-10
"""Similarities that differ by no more are tied. Rounding of float64 products is some 1e-14, and the least difference
between two candidates in the probes of docs/xtreme-r.md 5e-9."""
SAME = 1e-5
"""States of unit length at a smaller distance are the same, as their cosine differs from 1 by less than `TOLERANCE`.
Rounding of fp32 states is some 1e-7."""


def found_first(better: Array, tied: Array) -> Array:
    """Return the expectation of P@1 of each text, (texts,).

    Args:
        better: number of candidates that are more similar than the right one, (texts,).
        tied: number of other candidates that are as similar as the right one, (texts,).
    """
    hits: Array = (better == 0) / (1.0 + tied)
    return hits


def reciprocal_rank(better: Array, tied: Array) -> Array:
    """Return the expectation of the reciprocal rank of each text, (texts,); arguments as in `found_first`."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int((better + tied).max(initial=0)) + 2))])
    mean = (harmonic[better + tied + 1] - harmonic[better]) / (tied + 1)
    result: Array = np.where(tied > 0, mean, 1 / (better + 1))
    return result


def first_of_best(similarities: Array) -> Array:
    """Return the position of the most similar candidate of each text, the first of those that are tied, (texts,).

    Args:
        similarities: of each text with each candidate, (texts, candidates).
    """
    position: Array = (similarities >= similarities.max(axis=1, keepdims=True) - TOLERANCE).argmax(axis=1)
    return position


def tied_groups(similarities: Array, depth: int) -> list[Array]:
    """Return the positions of the `depth` best candidates, best first, in groups of those that are tied.

    The last group is whole, so that there can be more than `depth`; there are fewer if there are fewer candidates.

    Args:
        similarities: of one text with each candidate, (candidates,).
    """
    depth = min(depth, len(similarities))
    least = np.partition(similarities, -depth)[-depth]
    chosen = np.flatnonzero(similarities >= least - TOLERANCE)
    order = chosen[np.argsort(-similarities[chosen], kind="stable")]
    return np.split(order, np.flatnonzero(-np.diff(similarities[order]) > TOLERANCE) + 1)
