"""Errors of paired differences, moderated between pairs, and the distribution of the least p of all pairs.

Smyth, "Linear models and empirical Bayes methods for assessing differential expression", SAGMB 3 (2004).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

DRAWS = 10_000
_CHUNK = 2_000_000
"""Number of simulated values in memory at a time."""
_ROUNDING = 1e-20
"""A variance below this share of the squared difference is rounding error: the difference is the same in all."""
_DISPERSION = 2.0
"""The factor on the estimated dispersion of the pairs' log variances. Pairs share methods, so that their variances go
together and look more alike than they are; with this factor the simulated false-alarm rates keep to 5 %."""


class Errors(NamedTuple):
    """Differences of pairs with their moderated errors; arrays of shape (..., pairs).

    Attributes:
        effect: the mean difference over the blocks that both methods have, first minus second.
        error: the standard error.
        df: degrees of freedom.
        p: two-sided, for the pair alone.
    """

    effect: Array
    error: Array
    df: Array
    p: Array


def moderated(paired: Array, dispersion: float = _DISPERSION) -> Errors:
    """Return the mean difference of each pair with its moderated error.

    Args:
        paired: (..., pairs, blocks, replicates) differences, NaN where one of the two is missing.
        dispersion: the factor on the estimated dispersion of the log variances, 1 for pairs that share no methods.
    """
    known = ~np.isnan(paired)
    n = known.sum(axis=-1)
    filled = np.where(known, paired, 0.0)
    means = filled.sum(axis=-1) / np.maximum(n, 1)
    squares = (np.where(known, paired - means[..., None], 0.0) ** 2).sum(axis=-1)
    df = np.maximum(n - 1, 0)
    blocks = (n > 0).sum(axis=-1)
    total_df = df.sum(axis=-1)
    effect = np.where(blocks > 0, means.sum(axis=-1) / np.maximum(blocks, 1), np.nan)
    # A block with one difference has the pair's mean variance over its other blocks.
    share = (
        np.where(n > 1, 1 / np.maximum(n, 1), 0.0)
        + (n == 1).sum(axis=-1, keepdims=True) * df / np.maximum(total_df, 1)[..., None]
    )
    parts = share * squares / np.maximum(df, 1) / np.maximum(blocks, 1)[..., None] ** 2
    variance = parts.sum(axis=-1)
    # Satterthwaite; with df + 2, and 2 less of the sum, the estimate is nearly unbiased.
    raw = variance**2 / (parts**2 / (df + 2)).sum(axis=-1) - 2
    least = np.where(df > 0, df, np.inf).min(axis=-1)
    own_df = np.where(total_df > 0, np.clip(np.nan_to_num(raw), least, total_df), np.nan)
    variance = np.where((total_df > 0) & (variance > _ROUNDING * (1e-6 + effect**2)), variance, np.nan)
    variance, all_df = _moderate(variance, own_df, paired.shape[-3], dispersion)
    error = np.sqrt(variance)
    return Errors(effect, error, all_df, 2 * stats.t.sf(np.abs(effect / error), all_df))


def _moderate(variance: Array, df: Array, pairs: int, dispersion: float) -> tuple[Array, Array]:
    """Moderate the variances of pairs (last axis) towards their mean by the method of Smyth (2004)."""
    k = round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    if k < 3:
        return variance, df
    tested = np.isfinite(variance).sum(axis=-1, keepdims=True)
    logs = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    spread = np.nansum((logs - _mean(logs)) ** 2, axis=-1, keepdims=True) / np.maximum(tested - 1, 1)
    excess = dispersion * spread - _mean(special.polygamma(1, df / 2))
    prior_df = np.where(excess > 0, 2 * _inverse_trigamma(np.maximum(excess, 1e-9)), np.inf)
    prior_df = np.where(tested > 1, np.minimum(prior_df, 1e6), 0.0)
    return (prior_df * _mean(variance) + df * variance) / (prior_df + df), np.minimum(prior_df + df, (k - 1) * df)


def _mean(values: Array) -> Array:
    """Return the means of the numbers along the last axis, which is kept; zero where there are none."""
    known = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    return np.asarray(np.nansum(values, axis=-1, keepdims=True) / np.maximum(known, 1))


def _inverse_trigamma(x: Array) -> Array:
    """Return y with trigamma(y) = x, by Newton's method (Smyth 2004, appendix)."""
    y = 0.5 + 1 / x
    for _ in range(12):
        value = special.polygamma(1, y)
        y = np.maximum(y + value * (1 - value / x) / special.polygamma(2, y), 1e-9)
    return np.asarray(y)


@lru_cache(maxsize=256)
def least_p(missing: bytes, shape: tuple[int, int, int]) -> Array:
    """Return the sorted least p of all pairs in simulated designs without a difference (equal variances, fixed seed).

    Args:
        missing: which values of the design are missing, as the bytes of an array of this shape.
        shape: methods, blocks and replicates.
    """
    mask = np.frombuffer(missing, dtype=bool).reshape(shape)
    first, second = np.triu_indices(shape[0], 1)
    size = len(first) * shape[1] * shape[2]
    draws = max(1000, min(DRAWS, 200_000_000 // size))
    rng = np.random.default_rng(1908)
    least: list[Array] = []
    step = max(1, _CHUNK // size)
    for start in range(0, draws, step):
        values = rng.standard_normal((min(step, draws - start), *shape))
        values[:, mask] = np.nan
        with np.errstate(invalid="ignore", divide="ignore"):
            least.append(np.nanmin(moderated(values[:, first] - values[:, second]).p, axis=-1))
    return np.sort(np.concatenate(least))
