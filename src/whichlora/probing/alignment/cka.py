"""Linear CKA (Kornblith et al. 2019): similarity of the geometry of two models' hidden states.

It uses the unbiased HSIC estimator of Song et al. (2012, equation 5), because there are fewer texts than dimensions:
the biased estimator then gives a CKA close to 1 even for unrelated states. States are normalised to unit length,
because a few of them are hundreds of times as long as the others and would dominate the comparison.

The estimator is defined on the inner products of all pairs of texts. Here it is computed from sums over texts of
products of features, so that memory does not grow with the number of texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from whichlora.evaluation.translation_similarity import unit_norm_blocks

MIN_TEXTS = 4
"""Smallest number of texts for which the estimator is defined."""

Array = np.ndarray[Any, Any]


def cka(first: Array, second: Array) -> float:
    """Return the CKA of two models' states (texts, width) of the same texts: 1 if equal up to rotation, 0 if unrelated.

    The states may be memory-mapped: only a block of them and three (width, width) matrices in 64 bits are in memory.
    Returns NaN if all states of a model are equal.
    """
    sums = {pair: _Sums() for pair in ("first", "second", "both")}
    centres: list[Array] = []
    for (_, x), (_, y) in zip(unit_norm_blocks(first), unit_norm_blocks(second), strict=True):
        # The estimate is invariant to a shift of the states, and small states lose fewer digits.
        centres = centres or [x.mean(0), y.mean(0)]
        x, y = x - centres[0], y - centres[1]
        sums["first"].add(x, x)
        sums["second"].add(y, y)
        sums["both"].add(x, y)
    hsic = {pair: accumulated.hsic(len(first)) for pair, accumulated in sums.items()}
    scale = hsic["first"] * hsic["second"]
    return float(hsic["both"] / np.sqrt(scale)) if scale > 0 else float("nan")


class _Sums:
    """Sums over texts from which the HSIC of two models' states X and Y, (texts, width), is estimated.

    The kernels are K = X X' and L = Y Y', with their diagonals k and l (the squared lengths) set to zero. Then
    sum(K * L) = |X'Y|^2 - sum(k * l), and the row sums of K are x sum(x)' - k for each row x of X.
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
        """Return the estimate for the `n` texts added so far."""
        products = (self._xy**2).sum() - self._kl
        all_k, all_l = self._x @ self._x - self._k, self._y @ self._y - self._l
        rows = self._x @ self._xy @ self._y - self._x @ self._lx - self._y @ self._ky + self._kl
        return float(products + all_k * all_l / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))
