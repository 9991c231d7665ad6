"""Least-squares fits of treatments in blocks, for balanced and unbalanced designs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Result
from analysis.stats.distributions import range_quantile, range_tail

_ROUNDING = 1e-24
"""A residual sum of squares below this share of the sum of squared values is rounding error of a perfect fit."""


@dataclass(frozen=True)
class Additive:
    """The fit of value = treatment + block.

    Attributes:
        levels: the treatments.
        means: (levels,) mean of each treatment, adjusted for blocks (all blocks have equal weight).
        test: F test of the treatments, adjusted for blocks.
        variance: the residual variance.
        df: the residual degrees of freedom.
        covariance: (levels, levels) covariance of the means, up to a term common to all.
        n: the number of values.
    """

    levels: tuple[str, ...]
    means: NDArray[np.float64]
    test: Result
    variance: float
    df: int
    covariance: NDArray[np.float64]
    n: int

    def difference(self, first: str, second: str) -> tuple[float, float]:
        """Return the difference of two adjusted means, and its standard error."""
        i, j = self.levels.index(first), self.levels.index(second)
        c = self.covariance
        return float(self.means[i] - self.means[j]), float(np.sqrt(c[i, i] + c[j, j] - 2 * c[i, j]))


def additive(values: ArrayLike, treatments: Sequence[str], blocks: Sequence[str]) -> Additive:
    """Fit treatment and block effects; for a complete table of cell means the error is treatment x block.

    Raises:
        NotTestable: only one treatment or block, no residual degrees of freedom or variation, or a disconnected design.
    """
    y = np.asarray(values, dtype=float)
    levels, treated = np.unique(np.asarray(treatments, dtype=str), return_inverse=True)
    names, blocked = np.unique(np.asarray(blocks, dtype=str), return_inverse=True)
    if len(levels) < 2:
        raise NotTestable("there is one method only" if len(levels) else "there are no runs")
    if len(names) < 2:
        raise NotTestable("there is one block only")
    in_block = np.eye(len(names))[blocked]
    design = np.hstack([np.eye(len(levels))[treated], in_block[:, 1:]])
    df = len(y) - design.shape[1]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise NotTestable("some methods share no block, directly or through others")
    if df < 1:
        raise NotTestable("no degrees of freedom are left for the error")
    gram_inverse = np.linalg.inv(design.T @ design)
    coefficients = gram_inverse @ design.T @ y
    residual = float(np.sum((y - design @ coefficients) ** 2))
    if residual <= _ROUNDING * float(np.sum(y**2)):
        raise NotTestable("nothing varies beyond methods and blocks")
    block_means = in_block.T @ y / in_block.sum(axis=0)
    residual_without = float(np.sum((y - block_means[blocked]) ** 2))
    k, variance = len(levels), residual / df
    f = max(0.0, residual_without - residual) / (k - 1) / variance
    return Additive(
        levels=tuple(map(str, levels)),
        means=coefficients[:k] + coefficients[k:].sum() / len(names),
        test=Result(statistic=f, df=(k - 1, df), p=float(stats.f.sf(f, k - 1, df)), n=len(y)),
        variance=variance,
        df=df,
        covariance=variance * gram_inverse[:k, :k],
        n=len(y),
    )


def interaction(values: ArrayLike, first: Sequence[str], second: Sequence[str]) -> tuple[Result, Result, Result]:
    """Return the F tests of both factors, each adjusted for the other, and of their interaction.

    The error is the variance of repeated values within cells (type II sums of squares).

    Raises:
        NotTestable: no cell has two values, or the factors are confounded.
    """
    y = np.asarray(values, dtype=float)
    cell = np.array([f"{a}\t{b}" for a, b in zip(first, second, strict=True)], dtype=str)
    names, index = np.unique(cell, return_inverse=True)
    df = len(y) - len(names)
    if df < 1:
        raise NotTestable("no cell has two runs")
    means = np.bincount(index, y) / np.bincount(index)
    residual = float(np.sum((y - means[index]) ** 2))
    if residual <= _ROUNDING * float(np.sum(y**2)):
        raise NotTestable("nothing varies between seeds")
    error = residual / df
    one, two = additive(y, first, second), additive(y, second, first)
    results = []
    for fit in (one, two):
        statistic, (df_effect, _) = float(fit.test.statistic or 0), fit.test.df or (0, 0)
        f = statistic * fit.variance / error
        results.append(Result(f, (df_effect, df), float(stats.f.sf(f, df_effect, df)), n=len(y)))
    df_both = one.df - df
    if df_both < 1:
        raise NotTestable("too few cells for an interaction")
    f = max(0.0, one.variance * one.df - residual) / df_both / error
    return results[0], results[1], Result(f, (df_both, df), float(stats.f.sf(f, df_both, df)), n=len(y))


def tukey(fit: Additive, first: str, second: str, *, alpha: float = 0.05) -> tuple[Result, float]:
    """Compare two treatments, using the residual variance of the fit.

    Returns:
        the t test with a simultaneous interval, and Tukey's p (studentized range) over all pairs.
    """
    difference, error = fit.difference(first, second)
    t = difference / error
    k = len(fit.levels)
    half = range_quantile(1 - alpha, k, fit.df) / math.sqrt(2) * error
    result = Result(
        statistic=t,
        df=(fit.df,),
        p=float(2 * stats.t.sf(abs(t), fit.df)),
        effect=difference,
        interval=(difference - half, difference + half),
        n=fit.n,
    )
    return result, range_tail(abs(t) * math.sqrt(2), k, fit.df)
