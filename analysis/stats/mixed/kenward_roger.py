"""Tests of fixed effects of a mixed model by the method of Kenward and Roger.

The covariance of the estimates is adjusted for the estimation of the variances, and F is scaled and has the
denominator degrees of freedom that match its approximate mean and variance; in balanced designs both are exact.

Kenward and Roger, "Small sample inference for fixed effects from restricted maximum likelihood", Biometrics 53 (1997);
the names of the terms are those of Halekoh and Hojsgaard, "A Kenward-Roger approximation ... the R package pbkrtest",
Journal of Statistical Software 59 (9) (2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Result
from analysis.stats.mixed.reml import Fit
from analysis.stats.moderated import Errors

Array = NDArray[np.float64]

TOO_FEW = "less than one degree of freedom is left for the error"
_ZERO = 1e-9


def adjusted_covariance(fit: Fit) -> Array:
    """Return the covariance of the fixed effects, (p, p), adjusted for the estimation of the variances (equation 3)."""
    middle = np.tensordot(fit.variance_covariance, fit.second, axes=2)
    weighted = np.tensordot(fit.variance_covariance, fit.first, axes=1)
    middle -= np.einsum("iab,bc,icd->ad", weighted, fit.covariance, fit.first, optimize=True)
    adjusted = fit.covariance + 2 * fit.covariance @ middle @ fit.covariance
    return np.asarray((adjusted + adjusted.T) / 2)


def contrasts(fit: Fit, rows: ArrayLike, adjusted: Array | None = None) -> Errors:
    """Return estimates, standard errors, degrees of freedom and two-sided p of single contrasts, each (contrasts,).

    p is NaN below one degree of freedom, where the approximation has no meaning.

    Args:
        rows: (contrasts, p) coefficients.
        adjusted: the result of `adjusted_covariance`, if known.
    """
    rows = np.asarray(rows, dtype=float)
    adjusted = adjusted_covariance(fit) if adjusted is None else adjusted
    effect = rows @ fit.effects
    error = np.sqrt(np.einsum("ca,ab,cb->c", rows, adjusted, rows, optimize=True))
    # For a single contrast A1 and A2 are equal, the scale is 1 and the degrees of freedom are 2 / A2.
    loads = rows @ fit.covariance
    variance = np.sum(loads * rows, axis=1)
    slopes = -np.einsum("ca,iab,cb->ci", loads, fit.first, loads, optimize=True)
    df = 2 * variance**2 / np.einsum("ci,ij,cj->c", slopes, fit.variance_covariance, slopes)
    p = np.where(df > 1 - _ZERO**0.5, 2 * stats.t.sf(np.abs(effect / error), df), np.nan)
    return Errors(effect, error, df, p)


def f_test(fit: Fit, rows: ArrayLike, adjusted: Array | None = None) -> Result:
    """Test that independent contrasts, (contrasts, p), are zero together.

    Raises:
        NotTestable: there is less than one denominator degree of freedom.
    """
    rows = np.asarray(rows, dtype=float)
    number = len(rows)
    adjusted = adjusted_covariance(fit) if adjusted is None else adjusted
    inner = np.linalg.inv(rows @ fit.covariance @ rows.T)
    theta = fit.covariance @ rows.T @ inner @ rows @ fit.covariance
    products = theta @ fit.first
    traces = np.trace(products, axis1=1, axis2=2)
    weights = fit.variance_covariance
    a1 = float(traces @ weights @ traces)
    a2 = float(np.sum(weights * np.tensordot(products, products.swapaxes(1, 2), axes=((1, 2), (1, 2)))))
    df, scale = (2 / a2, 1.0) if number == 1 else _matched(number, a1, a2)
    if not (df > 1 - _ZERO**0.5 and scale > 0):
        raise NotTestable(TOO_FEW)
    effect = rows @ fit.effects
    wald = float(effect @ np.linalg.solve(rows @ adjusted @ rows.T, effect))
    f = scale * wald / number
    return Result(statistic=f, df=(number, df), p=float(stats.f.sf(f, number, df)), n=fit.n)


def _matched(number: int, a1: float, a2: float) -> tuple[float, float]:
    """Return the denominator degrees of freedom and the scale of F (Kenward and Roger 1997, section 3.3)."""
    b = (a1 + 6 * a2) / (2 * number)
    g = ((number + 1) * a1 - (number + 4) * a2) / ((number + 2) * a2)
    bottom = 3 * number + 2 * (1 - g)
    v0 = 1 + g / bottom * b
    v1 = 1 - (number - g) / bottom * b
    v2 = 1 - (number + 2 - g) / bottom * b
    mean = 1 - a2 / number
    ratio = 1.0 if max(abs(mean), abs(v1)) < _ZERO else mean / v1
    # 4 + (number + 2) / (number rho - 1), without the division by v2, which is 0 at 4 degrees of freedom.
    df = 4 + (number + 2) * v2 / (ratio**2 * v0 - v2)
    scale = 1.0 if abs(df - 2) < _ZERO**0.5 else df * mean / (df - 2)
    return float(df), float(scale)
