"""How alike the states of texts and of their translations are, beside texts that are no translations of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 1024
"""Texts that are compared with as many at a time."""

MEASURES = tuple(
    f"{measure}/{space}"
    for space in ("raw", "centred")
    for measure in ("cosine/translation", "cosine/random", "cosine/gap", "p1/to", "p1/from", "mrr/to", "mrr/from")
)
"""`to` looks for the translation of an English text, `from` for the English text of a translation."""


def similarity_blocks(states: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the rows of some texts, `BLOCK` at a time, and their states of unit length in 64 bits."""
    for start in range(0, len(states), BLOCK):
        rows = slice(start, min(start + BLOCK, len(states)))
        yield rows, _unit(states[rows])


def compare(states: Array, pairs: Sequence[tuple[str, str]]) -> Array:
    """Return (pairs, `MEASURES`): a pair's share in each, which average to it.

    `states` are those of the texts and of their translations, (pairs, 2, width), and may be mapped from a file: no more
    than two blocks of them are held, and a few numbers a pair. A random pair is a text with the translation of another;
    the value is the mean over all others, less those that are the same text. The rank of the translation is one more
    than the number of texts that are more similar. States have unit length before they are centred: a few words have
    states hundreds of times as long, and would be the mean.
    """
    names = [_numbered([pair[side] for pair in pairs]) for side in (0, 1)]
    centre = np.sum([block.sum(0) for _, block in similarity_blocks(states)], axis=0) / len(states)
    columns = []
    for taken_off in (None, centre):
        translation, random, ranks = _against_all(states, names, taken_off)
        columns += [translation, random, translation - random]
        columns += [1.0 * (ranks[0] == 1), 1.0 * (ranks[1] == 1), 1 / ranks[0], 1 / ranks[1]]
    return np.stack(columns, axis=1)


def _against_all(states: Array, names: list[Array], centre: Array | None) -> tuple[Array, Array, Array]:
    """Return each pair's cosine, its mean cosine with others, and the ranks (2, pairs) of its texts for each other."""
    count = len(states)
    translation, others = np.empty(count), np.zeros((2, count))
    total, ranks = np.zeros((2, count)), np.ones((2, count))
    for rows, own in _centred(states, centre):
        translation[rows] = np.einsum("iw,iw->i", own[:, 0], own[:, 1])
    for rows, own in _centred(states, centre):
        for columns, found in _centred(states, centre):
            cosine = own[:, 0] @ found[:, 1].T
            # To a translation among others, along the rows; back to an English text, along the columns.
            for way, (texts, axis) in enumerate(((rows, 1), (columns, 0))):
                name = names[1 - way]
                other = name[rows, None] != name[None, columns]
                bound = np.expand_dims(translation[texts], axis)
                total[way, texts] += np.where(other, cosine, 0).sum(axis)
                others[way, texts] += other.sum(axis)
                ranks[way, texts] += ((cosine > bound) & other).sum(axis)
    with np.errstate(invalid="ignore"):
        return translation, (total / others).mean(0), ranks


def _centred(states: Array, centre: Array | None) -> Iterator[tuple[slice, Array]]:
    for rows, block in similarity_blocks(states):
        yield rows, block if centre is None else _unit(block - centre)


def _numbered(names: Sequence[str]) -> Array:
    """Return a number for each name, the same for the same one."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def nearest(first: Array, second: Array) -> Array:
    """Return (rows,): for each row of `first`, the position of the row of `second` that is most like it, centred."""
    a, b = (_unit(_unit(side) - _unit(side).mean(0)) for side in (first, second))
    return np.concatenate([(a[i : i + BLOCK] @ b.T).argmax(1) for i in range(0, len(a), BLOCK)])


def _unit(rows: Array) -> Array:
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    result: Array = np.divide(exact, length, out=np.zeros_like(exact), where=length > 0)
    return result
