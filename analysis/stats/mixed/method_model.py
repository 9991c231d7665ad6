"""The mixed model of scores by method: fixed and random effects of each scope, and the contrasts between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Result
from analysis.stats.differences import THESE, Comparison, check_size
from analysis.stats.mixed.kenward_roger import TOO_FEW, adjusted_covariance, contrasts, f_test
from analysis.stats.mixed.reml import Fit, MixedModel
from analysis.stats.moderated import DRAWS, Errors

Array = NDArray[np.float64]

BLOCK, SEED, ADAPTER, INTERACTION = "block", "block x seed", "adapter", "method x block"


@dataclass(frozen=True)
class Compared:
    """The methods compared by a fitted model.

    Attributes:
        comparison: the pairs; n counts the blocks that both methods have.
        test: F of all methods, or the reason why there is none.
    """

    fit: Fit
    comparison: Comparison
    test: Result | NotTestable


class MethodModel:
    """A model of scores, ready to be fitted to any number of vectors of values.

    The unit of observation is the score, with random effects of the adapter and of the seed in its block. On these
    blocks ("these"), each cell of method and block is a fixed effect, and a method's mean is that of its cells, in
    which blocks that one adapter serves count together as one. On blocks like these ("like-these"), the method is
    fixed, and the block and its interaction with the method are random.

    Args:
        scores: the `scores` of `Cells`.
        scope: see `differences`.

    Raises:
        NotTestable: the design is too small.
    """

    def __init__(self, scores: pd.DataFrame, scope: str) -> None:
        method, methods = pd.factorize(scores["method"], sort=True)
        part, parts = pd.factorize(scores["part"], sort=True)
        self.methods = tuple(map(str, methods))
        check_size(len(methods), len(parts), scores["seed"].nunique(), scope)
        has = np.zeros((len(methods), len(parts)), dtype=bool)
        has[method, part] = True
        merged = scores.groupby(part)["block"].first().to_numpy()
        cell = method * len(parts) + part
        factors: dict[str, ArrayLike] = {ADAPTER: _adapters(scores)}
        if scores["seed"].nunique() > 1:
            seed = (scores["block"].astype(str) + "\t" + scores["seed"].astype(str)).to_numpy()
            factors = {SEED: seed, **factors}
        self.pairs = np.stack(np.triu_indices(len(methods), 1), axis=1)
        if scope == THESE:
            codes = np.unique(cell, return_inverse=True)[1]
            place = np.full(has.size, -1)
            place[cell] = codes
            cells = place.reshape(has.shape)
            rows = [_cell_contrast(cells, merged, pair, has[pair].all(axis=0)) for pair in self.pairs]
            everywhere = np.asarray(has.all(axis=0))
            together = [_cell_contrast(cells, merged, (0, i), everywhere) for i in range(1, len(methods))]
        else:
            codes = method
            factors = {BLOCK: part, INTERACTION: cell, **factors}
            linked = _linked(has)
            rows = [_method_contrast(len(methods), pair, linked[tuple(pair)]) for pair in self.pairs]
            together = [_method_contrast(len(methods), (0, i), bool(linked.all())) for i in range(1, len(methods))]
        self.model = MixedModel(np.eye(codes.max() + 1)[codes], factors)
        self.rows, self.together = np.array(rows), np.array(together)
        self.n = (has[self.pairs[:, 0]] & has[self.pairs[:, 1]]).sum(axis=1)
        self.scope = scope

    def compare(self, values: ArrayLike) -> Compared:
        """Fit the model to values in the order of the scores, (n,), and compare the methods.

        Raises:
            NotTestable: nothing varies, or no pair of methods can be compared.
        """
        fit = self.model.fit(values)
        adjusted = adjusted_covariance(fit)
        shared = np.isfinite(self.rows).all(axis=1)
        if not shared.any():
            raise NotTestable("no two methods share a block")
        filled = np.full((4, len(self.rows)), np.nan)
        filled[:, shared] = contrasts(fit, self.rows[shared], adjusted)
        errors = Errors(*filled)
        tested = np.isfinite(errors.p)
        if not tested.any():
            raise NotTestable(TOO_FEW)
        covariance = self.rows[tested] @ adjusted @ self.rows[tested].T
        null = least_p(covariance, errors.df[tested])
        return Compared(fit, Comparison(self.pairs, errors, null, self.n), self._test(fit, adjusted))

    def _test(self, fit: Fit, adjusted: Array) -> Result | NotTestable:
        if not np.isfinite(self.together).all():
            rest = "no block has all methods" if self.scope == THESE else "some methods share no block"
            return NotTestable(rest)
        try:
            return f_test(fit, self.together, adjusted)
        except NotTestable as reason:
            return reason


def least_p(covariance: Array, df: Array) -> Array:
    """Return the sorted least p of contrasts without an effect, from 10,000 draws of their multivariate t (fixed seed).

    Args:
        covariance: (contrasts, contrasts) of the estimates; may be singular.
        df: (contrasts,). Where they differ, the draws of the error variance have the same rank in all contrasts.
    """
    error = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(error, error))
    normal, score = _draws(len(error))
    t = np.abs(normal @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
    least = np.ones(DRAWS)
    rounded = np.round(df, 6)
    for value in np.unique(rounded):
        # Among contrasts of equal degrees of freedom the least p is that of the largest t.
        largest = t[:, rounded == value].max(axis=1) / np.sqrt(_chi_squared(score, value) / value)
        least = np.minimum(least, 2 * stats.t.sf(largest, value))
    return np.sort(least)


@lru_cache(maxsize=32)
def _draws(dimensions: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(1954)
    return rng.standard_normal((DRAWS, dimensions)), rng.standard_normal(DRAWS)


def _chi_squared(scores: Array, df: float) -> Array:
    """Return quantiles of chi squared at normal scores, interpolated: their cube root is nearly linear in the score."""
    grid = np.linspace(-6.0, 6.0, 1201)
    roots = np.cbrt(stats.chi2.ppf(stats.norm.cdf(grid), df))
    return np.asarray(np.interp(scores, grid, roots) ** 3)


def _adapters(scores: pd.DataFrame) -> NDArray[np.object_]:
    """Return the adapter of each score; a score of an unknown adapter is taken for one of its own."""
    own = pd.Series([f"score {number}" for number in range(len(scores))], index=scores.index)
    if "adapter" not in scores:
        return own.to_numpy(dtype=object)
    known = scores["adapter"].notna() & (scores["adapter"] != "")
    names = scores["method"] + "\t" + scores["adapter"].astype(str)
    return names.where(known, own).to_numpy(dtype=object)


def _cell_contrast(
    cells: NDArray[np.int64], merged: NDArray[np.object_], pair: Sequence[int], blocks: NDArray[np.bool_]
) -> Array:
    """Return the coefficients of the first method's mean minus the second's over blocks; NaN if there are none.

    Args:
        cells: (methods, blocks) index of the cell's effect, -1 for a missing cell.
        merged: (blocks,) the name that blocks of one adapter share.
        blocks: (blocks,) which to take.
    """
    row = np.zeros(cells.max() + 1)
    if not blocks.any():
        return np.full_like(row, np.nan)
    _, group, size = np.unique(merged[blocks], return_inverse=True, return_counts=True)
    weights = 1 / (len(size) * size[group])
    first, second = pair
    row[cells[first, blocks]] += weights
    row[cells[second, blocks]] -= weights
    return row


def _method_contrast(methods: int, pair: Sequence[int], linked: bool) -> Array:
    first, second = pair
    row = np.full(methods, 0.0 if linked else np.nan)
    row[first], row[second] = (1.0, -1.0) if linked else (np.nan, np.nan)
    return row


def _linked(has: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which methods share a block, directly or through other methods, (methods, methods)."""
    linked = (has.astype(int) @ has.T.astype(int)) > 0
    while (grown := (linked.astype(int) @ linked.astype(int)) > 0).sum() > linked.sum():
        linked = grown
    return np.asarray(linked)
