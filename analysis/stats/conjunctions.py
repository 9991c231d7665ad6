"""Tests in how many of several parts (configurations, measures, languages) something holds: partial conjunctions.

Benjamini and Heller, "Screening for partial conjunction hypotheses", Biometrics 64 (2008). The p values are combined by
Bonferroni's inequality, so that the parts may depend on each other, as those do that share an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.moderated import Errors, moderated

Array = NDArray[np.float64]


def partial_conjunction(p: ArrayLike, at_least: int) -> float:
    """Return p of the null hypothesis that fewer than `at_least` of the effects exist, from the p of each.

    With `at_least` 1 it is Bonferroni's, with the number of parts that of the intersection-union test.
    """
    values = np.sort(np.asarray(p, dtype=float))
    if at_least > len(values):
        return 1.0
    return float(min(1.0, (len(values) - at_least + 1) * values[at_least - 1])) if at_least > 0 else 0.0


def least_number(p: Sequence[float], alpha: float) -> int:
    """Return the number of effects that exist at least, with confidence 1 - alpha."""
    return max((n for n in range(len(p) + 1) if n == 0 or partial_conjunction(p, n) < alpha), default=0)


@dataclass(frozen=True)
class Directions:
    """Mean differences of pairs, with one-sided tests; arrays of shape (pairs,).

    Attributes:
        errors: the differences with their moderated errors.
        n: number of paired units.
        constant: the difference that all units of a pair have, NaN if theirs vary or there are fewer than two.
    """

    errors: Errors
    n: NDArray[np.int64]
    constant: Array

    def above(self, shift: float = 0.0) -> Array:
        """Return p of the tests that the mean difference exceeds `shift`.

        Where the units do not vary, as in peak memory, there is no error to divide by; p is then that of the sign test,
        2^-n. A pair that cannot be tested has p 1.
        """
        return self._one_sided(shift, 1)

    def below(self, shift: float = 0.0) -> Array:
        """Return p of the tests that the mean difference is less than `shift`; see `above`."""
        return self._one_sided(shift, -1)

    def _one_sided(self, shift: float, side: int) -> Array:
        effect, error, df, _ = self.errors
        with np.errstate(invalid="ignore"):
            p = stats.t.sf(side * (effect - shift) / error, df)
            signs = np.where(side * (self.constant - shift) > 0, 0.5 ** self.n.astype(float), 1.0)
        return np.where(np.isnan(p), signs, p)


def directions(paired: Array, *, independent: bool = False) -> Directions:
    """Return the mean difference of each pair with its error, moderated towards those of the other pairs.

    Args:
        paired: (pairs, blocks, replicates) differences, NaN where one of the two is missing.
        independent: whether no two pairs have a side in common.
    """
    n = (~np.isnan(paired)).sum(axis=(1, 2))
    constant = np.full(len(paired), np.nan)
    for index in np.flatnonzero(n > 1):
        values = paired[index][~np.isnan(paired[index])]
        if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
            constant[index] = values[0]
    tested = (n > 1) & np.isnan(constant)
    errors = Errors(*(np.full(len(paired), np.nan) for _ in Errors._fields))
    if tested.any():
        with np.errstate(invalid="ignore", divide="ignore"):
            found = moderated(paired[tested], **({"dispersion": 1.0} if independent else {}))
        for whole, part in zip(errors, found, strict=True):
            whole[tested] = part
    for index in np.flatnonzero(~tested & (n > 0)):
        errors.effect[index] = np.nanmean(paired[index])
    return Directions(errors, n, constant)
