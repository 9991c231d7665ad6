"""Does a column of the table go with F1, from run to run within a language? One column, or many at once."""

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
"""With fewer degrees of freedom (eight runs in one stratum have six) hardly any r passes, after a correction."""
_CHUNK = 500


def correlate(table: pd.DataFrame, *, outcome: str, column: str, alpha: float = 0.05) -> Record:
    """Return Pearson's correlation of a column with F1 over runs, both centred within each language (and setting)."""

    def make() -> Result:
        frame = rows(table, outcome)
        if column not in frame or frame[column].isna().all():
            raise NotTestable(f"the runs have no {column}")
        frame = frame[frame[column].notna()]
        groups = strata(frame, ("setting", "language"))
        _enough(len(frame), groups)
        return partial_pearson(frame[column], frame["value"], groups, alpha)

    return attempt(make, outcome, "correlation", "Pearson within languages", (column, "f1"), "n runs")


def partial_pearson(x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable], alpha: float = 0.05) -> Result:
    """Return Pearson's r of what is left of x and y when each group's mean is taken out; a degree of freedom is lost
    for each group. The interval is Fisher's.

    Raises:
        NotTestable: too few values, or one that does not vary within groups.
    """
    values, count = np.asarray(x, dtype=float), len(set(groups))
    df = len(values) - count - 1
    if df < 2:
        raise NotTestable(f"{len(values)} runs in {count} languages are too few for a correlation")
    unit = _units(np.column_stack([values, np.asarray(y, dtype=float)]), groups)
    if np.isnan(unit).any():
        raise NotTestable("one of the two does not vary within languages")
    return _result(float(unit[:, 0] @ unit[:, 1]), df, len(values), alpha)


@dataclass(frozen=True)
class CorrelationMap:
    """Correlations of many columns with F1, and which of them are more than chance.

    Attributes:
        results: one a column: r as the effect, t, p, and Fisher's interval, none of them adjusted; None for a column
            that does not vary or is not known of every run.
        p_adjusted: NaN for those.
        critical: |r| above which p_adjusted is below alpha.
        tests: columns that were tested.
    """

    results: tuple[Result | None, ...]
    p_adjusted: Floats
    critical: float
    tests: int


def correlation_map(
    x: Floats, y: Floats, groups: Sequence[Hashable], *, alpha: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> CorrelationMap:
    """Correlate each column of x (runs, columns) with y (runs,), means of groups taken out, adjusted by max-T.

    That is Westfall and Young's (1993) single-step method: y is permuted within groups `draws` times, and a correlation
    counts as far as it exceeds the greatest of all columns in those. It controls the chance of any false alarm among
    the columns, and loses little where neighbouring layers are alike.

    Raises:
        NotTestable: too few runs, or nothing that varies.
    """
    df = _enough(len(y), groups)
    unit, target = _units(x, groups), _units(y[:, None], groups)[:, 0]
    if np.isnan(target).any():
        raise NotTestable("F1 does not vary")
    known = np.asarray(~np.isnan(unit).any(axis=0))
    if not known.any():
        raise NotTestable("no share varies from run to run")
    r = target @ unit[:, known]
    greatest = _greatest(unit[:, known], target, groups, draws, seed)
    p_adjusted = np.full(x.shape[1], np.nan)
    # Sums in another order differ in the last digits: an equal correlation must count as equal.
    p_adjusted[known] = (1 + (greatest[:, None] >= np.abs(r) - 1e-12).sum(axis=0)) / (draws + 1)
    critical = float(np.sort(greatest)[::-1][max(0, int(alpha * (draws + 1)) - 2)])
    each = iter(r)
    results = tuple(_result(float(next(each)), df, len(y), alpha) if good else None for good in known.tolist())
    return CorrelationMap(results, p_adjusted, critical, int(known.sum()))


def strata(frame: pd.DataFrame, columns: Sequence[str]) -> list[Hashable]:
    """Return the group of each row: what it has in those of these columns that there are."""
    return list(frame[[c for c in columns if c in frame]].itertuples(index=False, name=None))


def _enough(n: int, groups: Sequence[Hashable]) -> int:
    """Return the degrees of freedom of a correlation within groups, or say that they are too few."""
    df = n - len(set(groups)) - 1
    if df < LEAST_DF:
        among = f" in {len(set(groups))} groups" if len(set(groups)) > 1 else ""
        there = "there is 1 run" if n == 1 else f"there are {n} runs"
        raise NotTestable(f"{there}{among}, and at least {n + LEAST_DF - df} are needed")
    return df


def _greatest(unit: Floats, target: Floats, groups: Sequence[Hashable], draws: int, seed: int) -> Floats:
    """Return the greatest |r| of all columns in each of `draws` permutations of the target within groups."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(pd.Series(list(groups), dtype=object))[0]
    places = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    found = []
    for start in range(0, draws, _CHUNK):
        permuted = np.tile(target, (min(_CHUNK, draws - start), 1))
        for place in places:
            permuted[:, place] = rng.permuted(permuted[:, place], axis=1)
        found.append(np.abs(permuted @ unit).max(axis=1))
    return np.concatenate(found)


def rank_within_groups(values: Floats, groups: Sequence[Hashable]) -> Floats:
    """Return ranks within groups, means for ties: Pearson's r of such is Spearman's."""
    frame = pd.DataFrame(values)
    ranks: Floats = frame.groupby(pd.factorize(pd.Series(list(groups), dtype=object))[0]).rank().to_numpy(dtype=float)
    return ranks


def _units(values: Floats, groups: Sequence[Hashable]) -> Floats:
    """Take the means of groups out of each column and scale it to length one; NaN where it does not vary."""
    frame = pd.DataFrame(values)
    codes = pd.factorize(pd.Series(list(groups), dtype=object))[0]
    left = values - frame.groupby(codes).transform("mean").to_numpy()
    length = np.sqrt((left**2).sum(axis=0))
    flat = ~(length > 1e-12 * np.maximum(1.0, np.abs(values).max(axis=0, initial=0.0)))  # NaN counts as flat
    unit: Floats = left / np.where(flat, np.nan, length)
    return unit


def _result(r: float, df: int, n: int, alpha: float) -> Result:
    r = float(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    t = r * np.sqrt(df / (1 - r * r))
    half = stats.norm.ppf(1 - alpha / 2) / np.sqrt(df - 1)
    interval = (float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))
    return Result(float(t), (df,), float(2 * stats.t.sf(abs(t), df)), r, interval, n)
