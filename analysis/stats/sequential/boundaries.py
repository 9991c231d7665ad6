"""Critical values of a t statistic that is looked at after every seed: group-sequential, with alpha spending.

The level is spent evenly over the seeds (Lan and DeMets 1983), about as Pocock's boundary spends it. The critical
values are those of normal values of unknown variance, computed without simulation. What makes that easy is that the t
statistics of a growing sample form a Markov chain: the direction of the sample (its sum over the root of n times the
sum of squares, a function of t) is independent of the sum of squares, so the next direction depends on the present one
and on the next value over the root of the sum of squares, which is Student's t with n degrees of freedom over the root
of n. The chain is followed in cells of .04 on the scale of normal quantiles, which makes critical values up to 0.3 %
too large after 20 seeds and up to 1 % after 60.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

FIRST_LOOK = 3
"""The number of seeds of the first look: with two, the critical t is in the hundreds, and the level better saved."""
_EDGES = np.append(np.arange(161) * 0.04, np.inf)
"""Edges of the cells of |z|, where z is the standard normal value that has the tail probability of t."""
_TAILS = special.ndtr(-_EDGES)
_CENTRES = np.append((_EDGES[:-2] + _EDGES[1:-1]) / 2, _EDGES[-2])


def spent(seeds: ArrayLike, most: int) -> Array:
    """Return the share of the level that is spent after a number of seeds, of at most `most`."""
    n = np.asarray(seeds, dtype=float)
    return np.asarray(np.where(n >= FIRST_LOOK, np.minimum(1.0, n / most), 0.0), dtype=float)


def start() -> Array:
    """Return the probabilities of the cells of |z| after two seeds, the first t (see `move`)."""
    return np.asarray(2 * (_TAILS[:-1] - _TAILS[1:]), dtype=float)


def move(alive: Array, seeds: int) -> Array:
    """Return the probabilities of the cells of |z| after one more seed.

    Args:
        alive: (..., cells) probabilities after `seeds` seeds, of no critical value having been exceeded so far.
    """
    return np.asarray(alive @ _transition(seeds))


def cut(now: Array, seeds: int, level: ArrayLike) -> tuple[Array, Array]:
    """Find the critical |t| that is exceeded with the probability `level` (both tails), but not before.

    Args:
        now: (..., cells) probabilities from `start` or `move`.
        seeds: number of seeds that t is of.
        level: (...).

    Returns:
        (...) the critical |t|, infinite for level 0, and (..., cells) the probabilities that it is not exceeded.
    """
    wanted = np.asarray(level, dtype=float)[..., None]
    beyond = np.cumsum(now[..., ::-1], axis=-1)[..., ::-1]
    left = np.clip(now - np.maximum(wanted - (beyond - now), 0.0), 0.0, now)
    # The cell of the critical value keeps a part of its probability. Within it the density is taken to be normal.
    cell = np.clip((beyond > wanted).sum(axis=-1) - 1, 0, None)
    part = np.take_along_axis(left, cell[..., None], -1) / np.take_along_axis(now, cell[..., None], -1)
    tail = _TAILS[cell] - part[..., 0] * (_TAILS[cell] - _TAILS[cell + 1])
    return np.where(wanted[..., 0] > 0, -special.stdtrit(seeds - 1, tail), np.inf), np.where(wanted > 0, left, now)


def critical_values(levels: ArrayLike) -> Array:
    """Return the critical |t| after two seeds, three and so on, given the level spent at each."""
    found: list[float] = []
    alive = start()
    for index, level in enumerate(np.asarray(levels, dtype=float)):
        alive = move(alive, index + 1) if index else alive
        value, alive = cut(alive, index + 2, level)
        found.append(float(value))
    return np.array(found)


@lru_cache(maxsize=256)
def _transition(n: int) -> Array:
    """Return the probability of each cell of |z| after n + 1 values (columns) given that after n values (rows)."""
    here = _direction(_CENTRES, n)[:, None]
    there = _direction(_EDGES, n + 1)
    above = _exceeds(here, there, n) + _exceeds(-here, there, n)
    above[:, 0] = 1.0
    return np.asarray(above[:, :-1] - above[:, 1:])


def _direction(z: Array, n: int) -> Array:
    """Return the direction of a sample of n values, between 0 and 1, from |z|."""
    t = -special.stdtrit(n - 1, special.ndtr(-z))
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(t), t / np.sqrt(n - 1 + t**2), 1.0)


def _exceeds(here: Array, there: Array, n: int) -> Array:
    """Return the probability that the direction after n + 1 values exceeds `there` (at least 0), given `here` after n.

    The new value is tan(angle) times the root of the sum of squares; the new direction is top * cos(angle - centre).
    """
    top = np.sqrt((n * here**2 + 1) / (n + 1))
    centre = np.arctan2(1.0, here * np.sqrt(n))
    reach = np.arccos(np.minimum(1.0, there / top))
    low, high = (np.clip(centre + side * reach, -np.pi / 2, np.pi / 2) for side in (-1, 1))
    found = [special.stdtr(n, np.sqrt(n) * np.tan(angle)) for angle in (low, high)]
    return np.where(there < top, found[1] - found[0], 0.0)
