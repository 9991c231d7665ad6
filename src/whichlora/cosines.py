"""How alike the states of texts and of their translations are, beside texts that are no translations of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_ROWS = 512
"""Texts that are compared with all others at a time."""

MEASURES = tuple(
    f"{measure}/{space}"
    for space in ("raw", "centred")
    for measure in ("cosine/translation", "cosine/random", "cosine/gap", "p1/to", "p1/from", "mrr/to", "mrr/from")
)
"""`to` looks for the translation of an English text, `from` for the English text of a translation."""


def compare(
    first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], pairs: Sequence[tuple[str, str]]
) -> np.ndarray[Any, Any]:
    """Return (pairs, `MEASURES`): a pair's share in each, which average to it.

    `first` and `second` are the states of the texts and of their translations, (pairs, width). A random pair is a text
    with the translation of another; the value is the mean over all others, less those that are the same text. The rank
    of the translation is one more than the number of texts that are more similar. States have unit length before they
    are centred: a few words have states hundreds of times as long, and would be the mean.
    """
    columns = []
    for centred in (False, True):
        a, b = (_unit(_unit(side) - _unit(side).mean(0)) if centred else _unit(side) for side in (first, second))
        translation = np.einsum("iw,iw->i", a, b)
        to = _against_all(a, b, translation, [pair[1] for pair in pairs])
        back = _against_all(b, a, translation, [pair[0] for pair in pairs])
        random = (to["random"] + back["random"]) / 2
        columns += [translation, random, translation - random]
        columns += [1.0 * (to["rank"] == 1), 1.0 * (back["rank"] == 1), 1 / to["rank"], 1 / back["rank"]]
    return np.stack(columns, axis=1)


def _against_all(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], own: np.ndarray[Any, Any], names: list[str]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return for each row of `a` the rank of its partner in `b`, and its mean cosine with all rows of other `names`."""
    number = np.unique(names, return_inverse=True)[1]
    random, rank = np.empty(len(a)), np.empty(len(a))
    for start in range(0, len(a), _ROWS):
        part = slice(start, start + _ROWS)
        other = number[part, None] != number[None]
        cosine = a[part] @ b.T
        with np.errstate(invalid="ignore"):
            random[part] = np.where(other, cosine, 0).sum(1) / other.sum(1)
        rank[part] = 1 + ((cosine > own[part, None]) & other).sum(1)
    return {"random": random, "rank": rank}


def nearest(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return (rows,): for each row of `first`, the position of the row of `second` that is most like it, centred."""
    a, b = (_unit(_unit(side) - _unit(side).mean(0)) for side in (first, second))
    return np.concatenate([(a[i : i + _ROWS] @ b.T).argmax(1) for i in range(0, len(a), _ROWS)])


def _unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    result: np.ndarray[Any, Any] = np.divide(exact, length, out=np.zeros_like(exact), where=length > 0)
    return result
