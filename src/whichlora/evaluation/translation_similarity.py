"""Measures the similarity of the states of texts and their translations, compared with random pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from whichlora.evaluation.ranking import SAME, TOLERANCE, first_of_best, found_first, reciprocal_rank

Array = np.ndarray[Any, Any]

BLOCK = 1024
"""Number of texts per side of a block of comparisons."""

MEASURES = tuple(
    f"{measure}/{space}"
    for space in ("raw", "centred")
    for measure in ("cosine/translation", "cosine/random", "cosine/gap", "p1/to", "p1/from", "mrr/to", "mrr/from")
)
"""`to` retrieves the translation of an English text, `from` the English text of a translation."""

CSLS_NEIGHBOURS = 10
"""Number of nearest neighbours in the other language whose mean cosine CSLS subtracts, as in its source."""
CSLS_MEASURES = tuple(f"{measure}/csls" for measure in ("p1/to", "p1/from", "mrr/to", "mrr/from"))
"""Retrieval by cross-domain similarity local scaling, which penalises hubs: texts that are near to many others."""


def unit_norm_blocks(states: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the rows and the states, scaled to unit length in float64, of `BLOCK` texts at a time."""
    for start in range(0, len(states), BLOCK):
        rows = slice(start, min(start + BLOCK, len(states)))
        yield rows, _unit(states[rows])


def compare(states: Array, pairs: Sequence[tuple[str, str]]) -> Array:
    """Return the value of each measure for each pair, (pairs, `MEASURES`); a measure is the mean over pairs.

    A random pair consists of a text and the translation of a different text; the value for a pair is the mean over all
    random pairs that contain one of its texts. P@1 and the reciprocal rank are expectations over random orders of
    tied texts, see `ranking`. States are scaled to unit length before centring, because the norms of a few words are
    hundreds of times larger and would dominate the mean.

    Args:
        states: states of the texts and their translations, (pairs, 2, width). The array may be memory-mapped: at most
            two blocks and a few numbers per pair are in memory.
        pairs: texts and their translations.
    """
    names = [_ids([pair[side] for pair in pairs]) for side in (0, 1)]
    centre = np.sum([block.sum(0) for _, block in unit_norm_blocks(states)], axis=0) / len(states)
    columns = []
    for subtracted in (None, centre):
        translation, random, better, tied = _against_all(states, names, subtracted)
        columns += [translation, random, translation - random]
        columns += _retrieval(better, tied)
    return np.stack(columns, axis=1)


def compare_by_csls(states: Array, pairs: Sequence[tuple[str, str]]) -> Array:
    """Return the value of each of `CSLS_MEASURES` for each pair, (pairs, `CSLS_MEASURES`).

    The similarity of two texts is twice their cosine, of raw states, minus the mean cosine of each with its
    `CSLS_NEIGHBOURS` nearest distinct texts in the other language (Conneau et al. 2018, arXiv 1710.04087). The
    arguments are those of `compare`.
    """
    names = [_ids([pair[side] for pair in pairs]) for side in (0, 1)]
    _, _, better, tied = _against_all(states, names, None, density=_density(states, names))
    return np.stack(_retrieval(better, tied), axis=1)


def _retrieval(better: Array, tied: Array) -> list[Array]:
    """Return P@1 and the reciprocal rank in both directions, (pairs,) each; the counts are those of `_against_all`."""
    return [measure(better[way], tied[way]) for measure in (found_first, reciprocal_rank) for way in (0, 1)]


def _density(states: Array, names: list[Array]) -> Array:
    """Return the mean cosine of each text with its nearest distinct texts in the other language, (2, pairs)."""
    distinct = [np.zeros(len(states), dtype=bool) for _ in names]
    for first, name in zip(distinct, names, strict=True):
        first[np.unique(name, return_index=True)[1]] = True
    k = min(CSLS_NEIGHBOURS, *(int(first.sum()) for first in distinct))
    nearest_cosines = np.full((2, len(states), k), -np.inf)
    for rows, english in unit_norm_blocks(states):
        for columns, target in unit_norm_blocks(states):
            cosine = english[:, 0] @ target[:, 1].T
            for way, (texts, others, values) in enumerate(((rows, columns, cosine), (columns, rows, cosine.T))):
                allowed = np.where(distinct[1 - way][None, others], values, -np.inf)
                merged = np.concatenate([nearest_cosines[way, texts], allowed], axis=1)
                nearest_cosines[way, texts] = np.partition(merged, -k, axis=1)[:, -k:]
    density: Array = nearest_cosines.mean(2)
    return density


def _against_all(
    states: Array, names: list[Array], centre: Array | None, *, density: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Return the cosine of each pair, the mean cosine of its random pairs, and two counts for its texts, (2, pairs).

    They are the numbers of other texts that are more similar to it than its partner, and as similar. With `density`,
    (2, pairs), all are of CSLS instead of the cosine.
    """
    count = len(states)
    translation, others = np.empty(count), np.zeros((2, count))
    total = np.zeros((2, count))
    better, tied = np.zeros((2, count), dtype=int), np.zeros((2, count), dtype=int)
    for rows, block in _centred(states, centre):
        translation[rows] = np.einsum("iw,iw->i", block[:, 0], block[:, 1])
    if density is not None:
        translation = 2 * translation - density.sum(0)
    for rows, english in _centred(states, centre):
        for columns, target in _centred(states, centre):
            cosine = english[:, 0] @ target[:, 1].T
            if density is not None:
                cosine = 2 * cosine - density[0, rows, None] - density[1, None, columns]
            # Each English text ranks the translations (along rows), each translation the English texts (along columns).
            for way, (texts, axis) in enumerate(((rows, 1), (columns, 0))):
                name = names[1 - way]
                other = name[rows, None] != name[None, columns]
                lead = cosine - np.expand_dims(translation[texts], axis)
                total[way, texts] += np.where(other, cosine, 0).sum(axis)
                others[way, texts] += other.sum(axis)
                better[way, texts] += ((lead > TOLERANCE) & other).sum(axis)
                tied[way, texts] += ((np.abs(lead) <= TOLERANCE) & other).sum(axis)
    with np.errstate(invalid="ignore"):
        return translation, (total / others).mean(0), better, tied


def _centred(states: Array, centre: Array | None) -> Iterator[tuple[slice, Array]]:
    for rows, block in unit_norm_blocks(states):
        yield rows, block if centre is None else subtract(block, centre)


def subtract(block: Array, centre: Array) -> Array:
    """Return states of unit length minus their mean, scaled to unit length; zero if they are the mean."""
    return _unit(block - centre, shortest=SAME)


def _ids(names: Sequence[str]) -> Array:
    """Return an integer for each name, equal for equal names."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def nearest(first: Array, second: Array, *, centred: bool = True) -> Array:
    """Return for each row of `first` the index of the most similar row of `second`, the first of those tied, (rows,).

    Args:
        centred: subtract the mean of each side.
    """
    a, b = (_unit(side) for side in (first, second))
    if centred:
        a, b = (subtract(side, side.mean(0)) for side in (a, b))
    return np.concatenate([first_of_best(a[i : i + BLOCK] @ b.T) for i in range(0, len(a), BLOCK)])


def _unit(rows: Array, *, shortest: float = 0.0) -> Array:
    """Return rows of unit length; those that are not longer than `shortest` become zero."""
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    result: Array = np.divide(exact, length, out=np.zeros_like(exact), where=length > shortest)
    return result
