"""Correlates columns of the table with F1 over runs within a language: one column, or many with max-T adjustment."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import rows

Floats = NDArray[np.float64]
DRAWS = 9999
LEAST_DF = 6
"""Minimum degrees of freedom (eight runs in one stratum have six): with fewer, hardly any r stays significant after
adjustment."""
_CHUNK = 500


def correlate(table: pd.DataFrame, *, outcome: str, column: str, alpha: float = 0.05) -> Record:
    """Return Pearson's correlation of a column with F1 over runs, both centred within each setting and language."""

    def make() -> Result:
        frame = rows(table, outcome)
        if column not in frame or frame[column].isna().all():
            raise NotTestable(f"the runs have no {column}")
        frame = frame[frame[column].notna()]
        groups = strata(frame, ("setting", "language"))
        _degrees_of_freedom(len(frame), groups)
        return partial_pearson(frame[column], frame["value"], groups, alpha)

    return attempt(make, outcome, "correlation", "Pearson within languages", (column, "f1"), "n runs")


def partial_pearson(x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable], alpha: float = 0.05) -> Result:
    """Return Pearson's r of x and y after centring both within groups, with Fisher's interval.

    Each group costs one degree of freedom.

    Raises:
        NotTestable: too few values, or x or y does not vary within groups.
    """
    values, count = np.asarray(x, dtype=float), len(set(groups))
    df = len(values) - count - 1
    if df < 2:
        raise NotTestable(f"{len(values)} runs in {count} languages are too few for a correlation")
    unit = _unit_columns(np.column_stack([values, np.asarray(y, dtype=float)]), groups)
    if np.isnan(unit).any():
        raise NotTestable("one of the two does not vary within languages")
    return _result(float(unit[:, 0] @ unit[:, 1]), df, len(values), alpha)


@dataclass(frozen=True)
class CorrelationMap:
    """Correlations of many columns with F1, with p adjusted for their number.

    Attributes:
        results: one per column: r as the effect, t, p and Fisher's interval, all unadjusted; None for a column that
            does not vary or has missing values.
        p_adjusted: (columns,), NaN where the result is None.
        critical: |r| above which p_adjusted is below alpha.
        tests: number of columns that were tested.
    """

    results: tuple[Result | None, ...]
    p_adjusted: Floats
    critical: float
    tests: int


def correlation_map(
    x: Floats, y: Floats, groups: Sequence[Hashable], *, alpha: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> CorrelationMap:
    """Correlate each column of x (runs, columns) with y (runs,), centred within groups; adjust p by max-T.

    This is the single-step method of Westfall and Young (1993): y is permuted within groups `draws` times, and each |r|
    is compared with the largest |r| over all columns in each permutation. It controls the family-wise error rate over
    the columns, and loses little power where neighbouring layers are correlated.

    Raises:
        NotTestable: too few runs, or nothing varies.
    """
    df = _degrees_of_freedom(len(y), groups)
    unit, target = _unit_columns(x, groups), _unit_columns(y[:, None], groups)[:, 0]
    if np.isnan(target).any():
        raise NotTestable("F1 does not vary")
    tested = np.asarray(~np.isnan(unit).any(axis=0))
    if not tested.any():
        raise NotTestable("no share varies from run to run")
    r = target @ unit[:, tested]
    max_r = _max_r(unit[:, tested], target, groups, draws, seed)
    p_adjusted = np.full(x.shape[1], np.nan)
    # The tolerance makes equal correlations count as equal although their sums were taken in another order.
    p_adjusted[tested] = (1 + (max_r[:, None] >= np.abs(r) - 1e-12).sum(axis=0)) / (draws + 1)
    critical = float(np.sort(max_r)[::-1][max(0, int(alpha * (draws + 1)) - 2)])
    values = iter(r)
    results = tuple(
        _result(float(next(values)), df, len(y), alpha) if is_tested else None for is_tested in tested.tolist()
    )
    return CorrelationMap(results, p_adjusted, critical, int(tested.sum()))


def strata(frame: pd.DataFrame, columns: Sequence[str]) -> list[Hashable]:
    """Return the group of each row: its values in the given columns, as far as the frame has them."""
    return list(frame[[c for c in columns if c in frame]].itertuples(index=False, name=None))


def _degrees_of_freedom(n: int, groups: Sequence[Hashable]) -> int:
    """Return the degrees of freedom of a correlation within groups.

    Raises:
        NotTestable: fewer than `LEAST_DF`.
    """
    df = n - len(set(groups)) - 1
    if df < LEAST_DF:
        among = f" in {len(set(groups))} groups" if len(set(groups)) > 1 else ""
        count = "there is 1 run" if n == 1 else f"there are {n} runs"
        raise NotTestable(f"{count}{among}, and at least {n + LEAST_DF - df} are needed")
    return df


def _max_r(unit: Floats, target: Floats, groups: Sequence[Hashable], draws: int, seed: int) -> Floats:
    """Return the largest |r| over all columns in each of `draws` permutations of the target within groups."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(pd.Series(list(groups), dtype=object))[0]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    maxima = []
    for start in range(0, draws, _CHUNK):
        permuted = np.tile(target, (min(_CHUNK, draws - start), 1))
        for index in members:
            permuted[:, index] = rng.permuted(permuted[:, index], axis=1)
        maxima.append(np.abs(permuted @ unit).max(axis=1))
    return np.concatenate(maxima)


def rank_within_groups(values: Floats, groups: Sequence[Hashable]) -> Floats:
    """Return ranks within groups, mean ranks for ties; Pearson's r of these is Spearman's rho."""
    frame = pd.DataFrame(values)
    ranks: Floats = frame.groupby(pd.factorize(pd.Series(list(groups), dtype=object))[0]).rank().to_numpy(dtype=float)
    return ranks


def _unit_columns(values: Floats, groups: Sequence[Hashable]) -> Floats:
    """Centre each column within groups and scale it to unit length; NaN if it does not vary."""
    frame = pd.DataFrame(values)
    codes = pd.factorize(pd.Series(list(groups), dtype=object))[0]
    centred = values - frame.groupby(codes).transform("mean").to_numpy()
    length = np.sqrt((centred**2).sum(axis=0))
    flat = ~(length > 1e-12 * np.maximum(1.0, np.abs(values).max(axis=0, initial=0.0)))  # NaN counts as flat
    unit: Floats = centred / np.where(flat, np.nan, length)
    return unit


def _result(r: float, df: int, n: int, alpha: float) -> Result:
    r = float(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    t = r * np.sqrt(df / (1 - r * r))
    half = stats.norm.ppf(1 - alpha / 2) / np.sqrt(df - 1)
    interval = (float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))
    return Result(float(t), (df,), float(2 * stats.t.sf(abs(t), df)), r, interval, n)
