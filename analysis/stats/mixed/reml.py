"""Fits linear mixed models with independent random intercepts (variance components) by REML.

The model is y = X beta + sum_i Z_i u_i + e with u_i ~ N(0, variance_i I) and e ~ N(0, residual I); factors may be
crossed or nested, and incomplete. The covariance of y is then block-diagonal over the parts that no factor links, and
parts of equal size are computed at once.

Patterson and Thompson, Biometrika 58 (1971); Searle, Casella and McCulloch, "Variance Components" (1992), chapter 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse
from scipy.sparse.csgraph import connected_components

from analysis.records import NotTestable

Array = NDArray[np.float64]

RESIDUAL = "residual"
_ROUNDING = 1e-24
"""A residual sum of squares below this share of the sum of squared values is rounding error of a perfect fit."""
_SINGULAR = 1e-6
"""A variance below this share of the residual variance counts as zero."""
_LARGEST = 1e8
"""The upper bound of a variance, as a multiple of the residual variance."""
_STARTS = (1.0, 0.1, 10.0)
"""Ratios to start from; the second and third are used where the first does not lead to a stationary point."""
_SLOPE = 1e-2
"""The largest derivative of the deviance by a log ratio that counts as zero."""
_CONFOUNDED = 1e-8


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model fitted by REML; p fixed effects, r variance components, the residual last.

    Attributes:
        variances: by component.
        levels: number of levels of each component; of the residual, the number of values.
        singular: the components whose variance is estimated as zero.
        confounded: factors left out because the design cannot separate them from the components that are kept.
        effects: (p,) estimates of the fixed effects.
        covariance: (p, p) of the estimates, the variances taken as known.
        first: (r, p, p) -X' W V_i W X, the derivatives of the inverse covariance, W the inverse of V.
        second: (r, r, p, p) X' W V_i W V_j W X.
        variance_covariance: (r, r) asymptotic covariance of the variances, the inverse of the expected information.
        log_likelihood: the restricted log likelihood.
        n: the number of values.
    """

    variances: Mapping[str, float]
    levels: Mapping[str, int]
    singular: tuple[str, ...]
    confounded: tuple[str, ...]
    effects: Array
    covariance: Array
    first: Array
    second: Array
    variance_covariance: Array
    log_likelihood: float
    n: int


class _Stack(NamedTuple):
    """Parts of equal size.

    Attributes:
        rows: (parts, size) indices of the values.
        design: (parts, size, p).
        kernels: (r, parts, size, size), 1 where two values have the same level; the residual's last.
    """

    rows: NDArray[np.int64]
    design: Array
    kernels: Array


class _State(NamedTuple):
    """The model at given ratios of the variances to the residual's, at a residual variance of 1.

    Attributes:
        inverses: of the covariance, by stack.
        weighted: that inverse times the design, by stack.
        covariance: (p, p) of the fixed effects.
        effects: (p,).
        residuals: the inverse times the residuals, by stack.
        sum_of_squares: the weighted residual sum of squares.
        deviance: -2 restricted log likelihood, the residual variance profiled out.
    """

    inverses: list[Array]
    weighted: list[Array]
    covariance: Array
    effects: Array
    residuals: list[Array]
    sum_of_squares: float
    deviance: float


class MixedModel:
    """A design, ready to be fitted to any number of vectors of values.

    Args:
        design: (n, p) of the fixed effects.
        factors: the level of each value, (n,), by name of the random factor. A factor that the design cannot separate
            from the residual or from the factors before it is left out (see `Fit.confounded`).

    Raises:
        NotTestable: the fixed effects are not estimable or leave no degrees of freedom.
    """

    def __init__(self, design: ArrayLike, factors: Mapping[str, ArrayLike]) -> None:
        self.design = np.asarray(design, dtype=float)
        n, p = self.design.shape
        if np.linalg.matrix_rank(self.design) < p:
            raise NotTestable("the fixed effects cannot be estimated separately")
        if n <= p:
            raise NotTestable("no degrees of freedom are left for the error")
        self._degrees_of_freedom, self._basis = n - p, np.linalg.qr(self.design)[0]
        codes = {name: np.unique(np.asarray(levels), return_inverse=True)[1] for name, levels in factors.items()}
        kept = self._separable(codes)
        self.confounded = tuple(name for name in codes if name not in kept)
        self.codes = {name: codes[name] for name in kept}
        self.names = (*kept, RESIDUAL)
        self.stacks = _stacks(self.design, list(self.codes.values()))

    def _separable(self, codes: Mapping[str, NDArray[np.int64]]) -> list[str]:
        """Return the factors whose covariance matrices, projected off the design, are linearly independent."""
        levels = [np.eye(code.max() + 1)[code] for code in codes.values()]
        loads = [self._basis.T @ indicators for indicators in levels]
        # Inner products of the projected matrices, that of the residual first.
        products = np.full((len(codes) + 1,) * 2, float(self._degrees_of_freedom))
        for i, j in itertools.combinations_with_replacement(range(len(codes)), 2):
            shared = levels[i].T @ levels[j] - loads[i].T @ loads[j]
            products[i + 1, j + 1] = products[j + 1, i + 1] = np.sum(shared**2)
            if i == j:
                products[0, i + 1] = products[i + 1, 0] = np.trace(shared)
        kept = [0]
        for index in range(1, len(products)):
            size, shared = products[index, index], products[kept, index]
            rest = size - shared @ np.linalg.solve(products[np.ix_(kept, kept)], shared)
            if size > _CONFOUNDED * len(self.design) and rest > _CONFOUNDED * size:
                kept.append(index)
        return [list(codes)[index - 1] for index in kept[1:]]

    def fit(self, values: ArrayLike) -> Fit:
        """Fit the model to values, (n,).

        Raises:
            NotTestable: nothing varies beyond the fixed effects, or the residual variance is estimated as zero.
        """
        y = np.asarray(values, dtype=float)
        least_squares = y - self._basis @ (self._basis.T @ y)
        if least_squares @ least_squares <= _ROUNDING * (y @ y):
            raise NotTestable("nothing varies beyond the fixed effects")
        ratios = self._ratios(y)
        if np.any(ratios >= _LARGEST / 2):
            raise NotTestable("the residual variance is estimated as zero")
        state = self._state(ratios, y)
        residual = state.sum_of_squares / self._degrees_of_freedom
        small = ratios < _SINGULAR
        variances = residual * np.append(np.where(small, 0.0, ratios), 1.0)
        first, second = self._derivatives(state)
        information = self._information(state, first, second)
        return Fit(
            variances=dict(zip(self.names, map(float, variances), strict=True)),
            levels={name: int(c.max()) + 1 for name, c in self.codes.items()} | {RESIDUAL: len(y)},
            singular=tuple(name for name, zero in zip(self.names, small, strict=False) if zero),
            confounded=self.confounded,
            effects=state.effects,
            covariance=residual * state.covariance,
            first=first / residual**2,
            second=second / residual**3,
            variance_covariance=np.asarray(residual**2 * np.linalg.inv(information)),
            log_likelihood=-state.deviance / 2,
            n=len(y),
        )

    def _ratios(self, y: Array) -> Array:
        """Return the ratios of the variances to the residual variance that maximise the restricted likelihood."""
        number = len(self.names) - 1
        if not number:
            return np.zeros(0)
        tried = []
        for start in _STARTS:
            found = optimize.minimize(
                self._deviance,
                np.full(number, start),
                args=(y,),
                jac=True,
                method="SLSQP",
                bounds=[(0.0, _LARGEST)] * number,
                options={"ftol": 1e-12, "maxiter": 500},
            )
            slope = found.jac * np.maximum(found.x, _SINGULAR)
            if found.success and np.all(np.where(found.x > 0, np.abs(slope), -slope) < _SLOPE):
                return np.asarray(found.x)
            tried.append(found)
        best = min(tried, key=lambda one: float(one.fun))
        return np.asarray(best.x)

    def _deviance(self, ratios: Array, y: Array) -> tuple[float, Array]:
        """Return the deviance and its gradient."""
        state = self._state(ratios, y)
        scale = self._degrees_of_freedom / state.sum_of_squares
        gradient = np.zeros(len(ratios))
        for stack, inverse, weighted, residuals in zip(
            self.stacks, state.inverses, state.weighted, state.residuals, strict=True
        ):
            projection = inverse - weighted @ state.covariance @ weighted.swapaxes(1, 2)
            outer = scale * residuals[:, :, None] * residuals[:, None, :]
            gradient += stack.kernels[:-1].reshape(len(ratios), -1) @ (projection - outer).ravel()
        return state.deviance, gradient

    def _state(self, ratios: Array, y: Array) -> _State:
        inverses, weighted = [], []
        p = self.design.shape[1]
        log_determinant, gram, moment, total = 0.0, np.zeros((p, p)), np.zeros(p), 0.0
        for stack in self.stacks:
            kernels = stack.kernels.reshape(len(self.names), -1)
            covariance = (np.append(ratios, 1.0) @ kernels).reshape(stack.kernels.shape[1:])
            log_determinant += float(np.linalg.slogdet(covariance)[1].sum())
            inverse = np.asarray(np.linalg.inv(covariance))
            inverses.append(inverse)
            weighted.append(inverse @ stack.design)
            gram += stack.design.reshape(-1, p).T @ weighted[-1].reshape(-1, p)
            moment += y[stack.rows].ravel() @ weighted[-1].reshape(-1, p)
        covariance = np.asarray(np.linalg.inv(gram))
        effects = covariance @ moment
        residuals = []
        for stack, inverse in zip(self.stacks, inverses, strict=True):
            raw = y[stack.rows] - stack.design @ effects
            residuals.append((inverse @ raw[:, :, None])[:, :, 0])
            total += float(np.sum(raw * residuals[-1]))
        df = self._degrees_of_freedom
        log_determinant += float(np.linalg.slogdet(gram)[1])
        deviance = log_determinant + df * (1 + np.log(2 * np.pi * total / df))
        return _State(inverses, weighted, covariance, effects, residuals, total, float(deviance))

    def _derivatives(self, state: _State) -> tuple[Array, Array]:
        """Return `Fit.first` and `Fit.second` at a residual variance of 1."""
        r, p = len(self.names), self.design.shape[1]
        first, second = np.zeros((r, p, p)), np.zeros((r, r, p, p))
        for stack, inverse, weighted in zip(self.stacks, state.inverses, state.weighted, strict=True):
            scaled = stack.kernels @ weighted
            first -= np.tensordot(scaled, weighted, axes=((1, 2), (0, 1))).swapaxes(1, 2)
            again = inverse @ scaled
            for i in range(r):
                second[i] += np.tensordot(again, scaled[i], axes=((1, 2), (0, 1))).swapaxes(1, 2)
        return first, second

    def _information(self, state: _State, first: Array, second: Array) -> Array:
        """Return the expected information on the variances, (r, r), at a residual variance of 1."""
        traces = np.zeros((len(self.names),) * 2)
        for stack, inverse in zip(self.stacks, state.inverses, strict=True):
            products = inverse @ stack.kernels
            traces += np.tensordot(products, products.swapaxes(2, 3), axes=((1, 2, 3), (1, 2, 3)))
        scaled = state.covariance @ first
        traces += np.tensordot(scaled, scaled.swapaxes(1, 2), axes=((1, 2), (1, 2)))
        return (traces - 2 * np.tensordot(second, state.covariance, axes=2)) / 2


def _stacks(design: Array, codes: list[NDArray[np.int64]]) -> list[_Stack]:
    """Divide the values into the parts that no factor links, and stack parts of equal size."""
    n = len(design)
    links = [sparse.coo_array((np.ones(n), (np.arange(n), levels))).tocsr() for levels in codes]
    linked = sum((z @ z.T for z in links), start=sparse.eye_array(n).tocsr())
    part = connected_components(linked, directed=False)[1]
    members = [np.flatnonzero(part == index) for index in range(part.max() + 1)]
    stacks = []
    for size in sorted({len(rows) for rows in members}):
        rows = np.stack([rows for rows in members if len(rows) == size])
        same = [levels[rows][:, :, None] == levels[rows][:, None, :] for levels in codes]
        identity = np.broadcast_to(np.eye(size, dtype=bool), (len(rows), size, size))
        stacks.append(_Stack(rows, design[rows], np.stack([*same, identity]).astype(float)))
    return stacks
