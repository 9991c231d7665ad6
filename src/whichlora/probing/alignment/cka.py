"""How much of the geometry of one model's states another model's have: linear CKA (Kornblith et al. 2019).

With Song et al.'s unbiased estimate of HSIC (2012, equation 5), because there are fewer texts than dimensions: the
plain one is then near 1 for states that have nothing to do with each other. States are first given unit length, so that
the few that are hundreds of times as long as the others are not all that is compared.

The estimate is written with the inner products of all texts. Here it comes from sums over texts of the products of
features, so that what is held does not grow with the number of texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from whichlora.evaluation.translation_similarity import unit_norm_blocks

LEAST = 4
"""Texts, below which the estimate is not defined."""

Array = np.ndarray[Any, Any]


def cka(one: Array, other: Array) -> float:
    """Return the CKA of two models' states of the same texts, (texts, width): 1 if alike up to rotation, 0 if not.

    The states may be mapped from a file: held are a block of them and three matrices (width, width) in 64 bits. NaN
    where all states of a model are the same.
    """
    sums = {pair: _Sums() for pair in ("one", "other", "both")}
    centres: list[Array] = []
    for (_, first), (_, second) in zip(unit_norm_blocks(one), unit_norm_blocks(other), strict=True):
        # The estimate is the same whatever vector is taken off, and exact for longer if the states are then small.
        centres = centres or [first.mean(0), second.mean(0)]
        first, second = first - centres[0], second - centres[1]
        sums["one"].add(first, first)
        sums["other"].add(second, second)
        sums["both"].add(first, second)
    hsic = {pair: own.hsic(len(one)) for pair, own in sums.items()}
    scale = hsic["one"] * hsic["other"]
    return float(hsic["both"] / np.sqrt(scale)) if scale > 0 else float("nan")


class _Sums:
    """Sums over texts of what the estimate asks of two models' states x and y.

    The kernels are K = X X' and L = Y Y' with zeros in place of their diagonals k and l, the squared lengths. Then
    sum(K L) is |X'Y|^2 - sum(k l), and the sum of a row of K is x sum(x)' - k.
    """

    def __init__(self) -> None:
        self._xy: Any = 0.0
        self._x: Any = 0.0
        self._y: Any = 0.0
        self._lx: Any = 0.0
        self._ky: Any = 0.0
        self._k = self._l = self._kl = 0.0

    def add(self, x: Array, y: Array) -> None:
        """Add the states of some texts, (texts, width)."""
        k, l = (x * x).sum(1), (y * y).sum(1)  # noqa: E741
        self._xy = self._xy + x.T @ y
        self._x, self._y = self._x + x.sum(0), self._y + y.sum(0)
        self._lx, self._ky = self._lx + l @ x, self._ky + k @ y
        self._k, self._l, self._kl = self._k + k.sum(), self._l + l.sum(), self._kl + k @ l

    def hsic(self, n: int) -> float:
        """Return the estimate for the `n` texts that were added."""
        products = (self._xy**2).sum() - self._kl
        all_k, all_l = self._x @ self._x - self._k, self._y @ self._y - self._l
        rows = self._x @ self._xy @ self._y - self._x @ self._lx - self._y @ self._ky + self._kl
        return float(products + all_k * all_l / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))
