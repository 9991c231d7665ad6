"""Measures the similarity of the states of texts and their translations, compared with random pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 1024
"""Number of texts per side of a block of comparisons."""

MEASURES = tuple(
    f"{measure}/{space}"
    for space in ("raw", "centred")
    for measure in ("cosine/translation", "cosine/random", "cosine/gap", "p1/to", "p1/from", "mrr/to", "mrr/from")
)
"""`to` retrieves the translation of an English text, `from` the English text of a translation."""


def unit_norm_blocks(states: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the rows and the states, scaled to unit length in float64, of `BLOCK` texts at a time."""
    for start in range(0, len(states), BLOCK):
        rows = slice(start, min(start + BLOCK, len(states)))
        yield rows, _unit(states[rows])


def compare(states: Array, pairs: Sequence[tuple[str, str]]) -> Array:
    """Return the value of each measure for each pair, (pairs, `MEASURES`); a measure is the mean over pairs.

    A random pair consists of a text and the translation of a different text; the value for a pair is the mean over all
    random pairs that contain one of its texts. The rank of a translation is one plus the number of more similar texts.
    States are scaled to unit length before centring, because the norms of a few words are hundreds of times larger and
    would dominate the mean.

    Args:
        states: states of the texts and their translations, (pairs, 2, width). The array may be memory-mapped: at most
            two blocks and a few numbers per pair are in memory.
        pairs: texts and their translations.
    """
    names = [_ids([pair[side] for pair in pairs]) for side in (0, 1)]
    centre = np.sum([block.sum(0) for _, block in unit_norm_blocks(states)], axis=0) / len(states)
    columns = []
    for subtracted in (None, centre):
        translation, random, ranks = _against_all(states, names, subtracted)
        columns += [translation, random, translation - random]
        columns += [1.0 * (ranks[0] == 1), 1.0 * (ranks[1] == 1), 1 / ranks[0], 1 / ranks[1]]
    return np.stack(columns, axis=1)


def _against_all(states: Array, names: list[Array], centre: Array | None) -> tuple[Array, Array, Array]:
    """Return the cosine of each pair, the mean cosine of its random pairs, and the ranks of its texts, (2, pairs)."""
    count = len(states)
    translation, others = np.empty(count), np.zeros((2, count))
    total, ranks = np.zeros((2, count)), np.ones((2, count))
    for rows, block in _centred(states, centre):
        translation[rows] = np.einsum("iw,iw->i", block[:, 0], block[:, 1])
    for rows, english in _centred(states, centre):
        for columns, target in _centred(states, centre):
            cosine = english[:, 0] @ target[:, 1].T
            # Each English text ranks the translations (along rows), each translation the English texts (along columns).
            for way, (texts, axis) in enumerate(((rows, 1), (columns, 0))):
                name = names[1 - way]
                other = name[rows, None] != name[None, columns]
                pair_cosine = np.expand_dims(translation[texts], axis)
                total[way, texts] += np.where(other, cosine, 0).sum(axis)
                others[way, texts] += other.sum(axis)
                ranks[way, texts] += ((cosine > pair_cosine) & other).sum(axis)
    with np.errstate(invalid="ignore"):
        return translation, (total / others).mean(0), ranks


def _centred(states: Array, centre: Array | None) -> Iterator[tuple[slice, Array]]:
    for rows, block in unit_norm_blocks(states):
        yield rows, block if centre is None else _unit(block - centre)


def _ids(names: Sequence[str]) -> Array:
    """Return an integer for each name, equal for equal names."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def nearest(first: Array, second: Array) -> Array:
    """Return for each row of `first` the index of the most similar row of `second`, both centred, (rows,)."""
    a, b = (_unit(_unit(side) - _unit(side).mean(0)) for side in (first, second))
    return np.concatenate([(a[i : i + BLOCK] @ b.T).argmax(1) for i in range(0, len(a), BLOCK)])


def _unit(rows: Array) -> Array:
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    result: Array = np.divide(exact, length, out=np.zeros_like(exact), where=length > 0)
    return result
