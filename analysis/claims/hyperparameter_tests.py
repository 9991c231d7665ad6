"""Tests where the best value of a hyperparameter lies at one level of a factor, compared with another level."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.claims.verdicts import CONTRADICTED, SUPPORTED, Verdict, format_p, undecided
from analysis.columns import SETTINGS
from analysis.decimals import fixed
from analysis.records import NotTestable, Record
from analysis.stats.cells import format_level, rows
from analysis.stats.conjunctions import directions, partial_conjunction
from analysis.stats.contrasts import FOLLOWS, TRAINING, UNITS, same_level

_LEAST_LEVELS = 3


def best_value(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    parameter: str,
    factor: str,
    upper: str,
    lower: str,
    ratio: float = 1.0,
    within: float = 2.0,
    metric: str = "f1",
) -> Verdict:
    """Test whether the best value of a parameter at one level of a factor is `ratio` times that at another.

    The best value of a unit is the vertex of the parabola through the best value tried and its neighbours, over the
    logarithm of the parameter. Units are pairs of runs at each value that differ in the factor and the parameter alone.
    The logarithms of the quotients are compared with `ratio` by two one-sided t tests. A verdict needs a peak at both
    levels: a value between the ends that is shown to be better than both of them.

    Args:
        parameter: a column such as learning_rate, with at least three values at each level.
        factor: the column of the levels `upper` and `lower`, such as rank or variant.
        within: the factor by which the quotient may deviate from `ratio`.
    """
    sides = _curves(rows(table, outcome, metric), parameter, factor, (upper, lower))
    upper_best, lower_best = (_vertices(side) for side in sides)
    quotients = upper_best - lower_best
    found = directions(quotients[None, None, :])
    if len(quotients) < 2:
        return undecided("fewer than two languages, ratios or seeds have runs at both levels")
    groups = (f"{factor} {upper}", f"{factor} {lower}")
    peaks = [_peak(side) for side in sides]
    target, tolerance = np.log(ratio), np.log(within)
    holds = max(float(found.above(target - tolerance)[0]), float(found.below(target + tolerance)[0]), *peaks)
    outside = min(1.0, 2 * min(float(found.below(target - tolerance)[0]), float(found.above(target + tolerance)[0])))
    fails = max(outside, *peaks)
    effect, error, df, _ = (float(values[0]) for values in found.errors)
    half = float(np.nan_to_num(stats.t.isf(alpha, df) * error))
    quotient, low, high = (float(np.exp(x)) for x in (effect, effect - half, effect + half))
    note = f"effect: best {parameter} of the first by that of the second; {1 - 2 * alpha:.0%} CI; n units"
    records = [
        Record(
            outcome=outcome, analysis="best value", test=name, groups=groups, p=p, effect=quotient,
            interval=(low, high), n=len(quotients), note=note,
        )
        for name, p in (("as claimed", holds), ("outside", fails))
    ]  # fmt: skip
    note = f"p: of the values of {parameter} between the ends, at least one is better than both ends (Bonferroni)"
    records += [
        Record(outcome=outcome, analysis="best value", test="peak", groups=(group,), p=p, n=len(quotients), note=note)
        for group, p in zip(groups, peaks, strict=True)
    ]
    for group, p in zip(groups, peaks, strict=True):
        if not p < alpha:
            text = f"no {parameter} of {group} is shown to be better than both the lowest and the highest that were "
            return undecided(f"{text}tried ({format_p(p)})", records)
    around = f"{fixed(quotient, 2)} [{fixed(low, 2)}, {fixed(high, 2)}]"
    text = f"the best {parameter} of {groups[0]} is {around} times that of {groups[1]}, "
    text += f"claimed is {ratio:g} within a factor of {within:g} "
    text += f"({format_p(records[0].p)} that it is, {format_p(records[1].p)} that it is not)"
    for verdict, p in ((SUPPORTED, holds), (CONTRADICTED, fails)):
        if p < alpha:
            return Verdict(verdict, text, tuple(records))
    return undecided(text, records)


def _curves(
    frame: pd.DataFrame, parameter: str, factor: str, levels: tuple[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of the same units (rows) at each value of the parameter (columns), for both levels.

    Raises:
        NotTestable: there are too few values or no units in common, or the best of the means lies at an end.
    """
    if missing := [column for column in (parameter, factor) if column not in frame]:
        raise NotTestable(f"the runs have no {missing[0]}")
    # At ratio 0 one adapter serves every language, so that these are one unit.
    frame = frame.assign(language=frame["language"].mask(frame["tl_ratio"] == 0, ""))
    settings = TRAINING if factor == "variant" else ("variant", "arm", *SETTINGS)
    follows = (factor, parameter, *FOLLOWS.get(factor, ()))
    held = [c for c in dict.fromkeys((*settings, *UNITS)) if c in frame and c not in follows]
    frame = frame.assign(**{column: frame[column].map(format_level) for column in held})
    found = []
    for level in levels:
        side = frame[[same_level(factor, value, level) for value in frame[factor]]].dropna(subset=parameter)
        if side.empty:
            raise NotTestable(f"there are no runs with {factor} {level}")
        curves = side.groupby([*held, parameter])["value"].mean().unstack(parameter).dropna()
        if curves.shape[1] < _LEAST_LEVELS or curves.empty:
            needed = f"{factor} {level} needs at least {_LEAST_LEVELS} values of {parameter}"
            raise NotTestable(f"{needed} in runs that differ in it alone")
        found.append(curves)
    common = found[0].index.intersection(found[1].index)
    if common.empty:
        raise NotTestable(f"no two runs differ in {factor} and {parameter} alone, {levels[0]} and {levels[1]}")
    upper, lower = (curves.loc[common] for curves in found)
    for curves, level in ((upper, levels[0]), (lower, levels[1])):
        peak = int(np.argmax(curves.mean().to_numpy()))
        if peak in (0, curves.shape[1] - 1):
            end = "highest" if peak else "lowest"
            raise NotTestable(f"the best {parameter} of {factor} {level} is the {end} that was tried")
    return upper, lower


def _peak(curves: pd.DataFrame) -> float:
    """Return p of the null hypothesis that no value between the ends is better than both."""
    scores = curves.to_numpy(dtype=float)
    above = []
    for position in range(1, scores.shape[1] - 1):
        leads = scores[:, [position]] - scores[:, [0, -1]]
        above.append(max(float(directions(lead[None, None]).above()[0]) for lead in leads.T))
    return partial_conjunction(above, 1)


def _vertices(curves: pd.DataFrame) -> NDArray[np.float64]:
    """Return the logarithm of the best value in each unit."""
    logs = np.log(curves.columns.to_numpy(dtype=float))
    return np.array([_vertex(logs, row) for row in curves.to_numpy(dtype=float)])


def _vertex(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return where the parabola through the highest point and its neighbours has its vertex; at an end, the end."""
    peak = int(np.argmax(y))
    if peak in (0, len(x) - 1):
        return float(x[peak])
    around = slice(peak - 1, peak + 2)
    curvature, slope, _ = np.polyfit(x[around] - x[peak], y[around], 2)
    return float(x[peak] - slope / (2 * curvature)) if curvature < 0 else float(x[peak])
