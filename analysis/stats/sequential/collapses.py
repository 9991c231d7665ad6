"""A test, valid at every look, of whether a method fails to learn in more seeds than can be tolerated.

The statistic is the likelihood ratio of the observed number of collapses, averaged over probabilities above the
tolerated one, against the tolerated one. While the true probability is not above that, it exceeds 1 / level at any time
with at most the probability `level` (Ville's inequality; Robbins 1970).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

TOLERATED = 0.03
"""The probability of a collapse up to which a method is not dropped for its collapses. If a collapsed run loses some
thirty points, it lowers the mean by the default margin of one point."""


def unreliable(collapses: ArrayLike, runs: ArrayLike, alpha: float) -> NDArray[np.bool_]:
    """Return which methods (last axis) are shown to collapse with more than the tolerated probability."""
    k, n = np.asarray(collapses, dtype=float), np.asarray(runs, dtype=float)
    averaged = special.betaln(k + 1, n - k + 1) + np.log(special.betaincc(k + 1, n - k + 1, TOLERATED))
    tolerated = k * np.log(TOLERATED) + (n - k) * np.log1p(-TOLERATED)
    return np.asarray(averaged - np.log1p(-TOLERATED) - tolerated > np.log(k.shape[-1] / alpha))


def most_collapses(collapses: ArrayLike, runs: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Return the upper bound of the probability of a collapse (Clopper and Pearson 1934), one-sided, for one method."""
    k, n = np.asarray(collapses, dtype=float), np.asarray(runs, dtype=float)
    return np.asarray(np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - alpha), 1.0))
