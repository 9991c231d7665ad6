"""Tests of hyperparameters: where the best value of one lies, and whether it changes the difference of two variants."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.claims.parts import judge_parts, parts_of_differences, untested_part
from analysis.claims.relations import relations_of
from analysis.claims.verdicts import CONTRADICTED, SUPPORTED, Verdict, format_p, undecided
from analysis.decimals import fixed
from analysis.records import NotTestable, Record
from analysis.stats.cells import format_level, in_points, rows
from analysis.stats.conjunctions import directions
from analysis.stats.contrasts import same_level, units

_UNIT = ["language", "tl_ratio", "seed"]
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

    The best value of a language, ratio and seed is the vertex of the parabola through the best value tried and its
    neighbours, over the logarithm of the parameter. The logarithms of the quotients are compared with `ratio` by two
    one-sided t tests. If the best mean is at the end of the values tried, the claim is undecided.

    Args:
        parameter: a column such as learning_rate, with at least three values at each level.
        factor: the column of the levels `upper` and `lower`, such as rank or variant.
        within: the factor by which the quotient may deviate from `ratio`.
    """
    frame = rows(table, outcome, metric)
    try:
        best = [_best_values(frame, parameter, factor, level) for level in (upper, lower)]
    except NotTestable as reason:
        return undecided(str(reason))
    both = pd.concat(best, axis=1, keys=("upper", "lower"), join="inner").dropna()
    quotients = (both["upper"] - both["lower"]).to_numpy(dtype=float)
    found = directions(quotients[None, None, :])
    if np.isnan(found.errors.error[0]) and np.isnan(found.constant[0]):
        return undecided("fewer than two languages, ratios or seeds have runs at both levels")
    target, tolerance = np.log(ratio), np.log(within)
    holds = max(float(found.above(target - tolerance)[0]), float(found.below(target + tolerance)[0]))
    fails = min(1.0, 2 * min(float(found.below(target - tolerance)[0]), float(found.above(target + tolerance)[0])))
    effect, error, df, _ = (float(values[0]) for values in found.errors)
    half = float(np.nan_to_num(stats.t.isf(alpha, df) * error))
    quotient, low, high = (float(np.exp(x)) for x in (effect, effect - half, effect + half))
    groups = (f"{factor} {upper}", f"{factor} {lower}")
    note = f"effect: best {parameter} of the first by that of the second; {1 - 2 * alpha:.0%} CI; n units"
    records = [
        Record(
            outcome=outcome, analysis="best value", test=name, groups=groups, p=p, effect=quotient,
            interval=(low, high), n=len(quotients), note=note,
        )
        for name, p in (("as claimed", holds), ("outside", fails))
    ]  # fmt: skip
    around = f"{fixed(quotient, 2)} [{fixed(low, 2)}, {fixed(high, 2)}]"
    text = f"the best {parameter} of {groups[0]} is {around} times that of {groups[1]}, "
    text += f"claimed is {ratio:g} within a factor of {within:g} "
    text += f"({format_p(records[0].p)} that it is, {format_p(records[1].p)} that it is not)"
    for verdict, p in ((SUPPORTED, holds), (CONTRADICTED, fails)):
        if p < alpha:
            return Verdict(verdict, text, tuple(records))
    return undecided(text, records)


def interaction(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    order: str,
    factor: str,
    hold: str | int = "all",
    metric: str = "f1",
) -> Verdict:
    """Test whether the lead of one variant over another is greater at the highest value of a factor than at the lowest.

    Args:
        order: relations of variants such as "full > lora": the lead of the first over the second is greater.
        factor: a column of numbers, such as batch_size; runs of a pair agree in all others.
        hold: in how many of the relations it must be so.
    """
    frame = rows(table, outcome, metric)
    if factor not in frame or "variant" not in frame:
        return undecided(f"the runs have no {factor if factor not in frame else 'variant'}")
    try:
        relations = relations_of(order, frame, "variant", metric)
    except NotTestable as reason:
        return undecided(str(reason))
    differences, parts = [], []
    for relation in relations:
        first, _, second = relation
        try:
            values = _change_of_lead(table, outcome, first, second, factor, metric)
        except NotTestable as reason:
            parts.append(untested_part(f"{first} - {second}", str(reason)))
            continue
        differences.append((f"{first} - {second}", [relation], values))
    parts += parts_of_differences(differences, margin if in_points(metric) else 0.0, outcome)
    return judge_parts(parts, hold, alpha, outcome=outcome, unit="pairs of variants")


def _change_of_lead(
    table: pd.DataFrame, outcome: str, first: str, second: str, factor: str, metric: str
) -> NDArray[np.float64]:
    """Return by how much the lead of `first` over `second` is greater at the highest common level, (1, 1, units).

    Raises:
        NotTestable: the two have fewer than two levels in common, or no runs that can be paired.
    """
    of_variant = {name: table[table["variant"] == name] for name in (first, second)}
    levels = sorted(set.intersection(*(set(part[factor].dropna().astype(float)) for part in of_variant.values())))
    if len(levels) < 2:
        raise NotTestable(f"{first} and {second} have fewer than two values of {factor} in common")
    ends = {"upper": format_level(levels[-1]), "lower": format_level(levels[0])}
    changes = []
    for part in of_variant.values():
        upper, lower = units(part, outcome=outcome, factor=factor, metric=metric, **ends)
        changes.append(upper - lower)
    change = (changes[0] - changes[1]).dropna().to_numpy(dtype=float)
    if not len(change):
        raise NotTestable(f"{first} and {second} have no language, ratio and seed in common")
    return np.asarray(change[None, None, :], dtype=np.float64)


def _best_values(frame: pd.DataFrame, parameter: str, factor: str, level: str) -> pd.Series[float]:
    """Return the logarithm of the best value of the parameter in each unit of a level.

    Raises:
        NotTestable: there are too few values, or the best of the means is the lowest or the highest.
    """
    if missing := [column for column in (parameter, factor) if column not in frame]:
        raise NotTestable(f"the runs have no {missing[0]}")
    side = frame[[same_level(factor, value, level) for value in frame[factor]]].dropna(subset=parameter)
    if side.empty:
        raise NotTestable(f"there are no runs with {factor} {level}")
    # At ratio 0 one adapter serves every language, so that these are one unit.
    side = side.assign(language=side["language"].mask(side["tl_ratio"] == 0, ""))
    curves = side.groupby([*_UNIT, parameter])["value"].mean().unstack(parameter).dropna()
    if curves.shape[1] < _LEAST_LEVELS or curves.empty:
        raise NotTestable(f"{factor} {level} needs at least {_LEAST_LEVELS} values of {parameter} in the same units")
    logs = np.log(curves.columns.to_numpy(dtype=float))
    peak = int(np.argmax(curves.mean().to_numpy()))
    if peak in (0, len(logs) - 1):
        end = "highest" if peak else "lowest"
        raise NotTestable(f"the best {parameter} of {factor} {level} is the {end} that was tried")
    return pd.Series([_vertex(logs, row) for row in curves.to_numpy(dtype=float)], curves.index)


def _vertex(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return where the parabola through the highest point and its neighbours has its vertex; at an end, the end."""
    peak = int(np.argmax(y))
    if peak in (0, len(x) - 1):
        return float(x[peak])
    around = slice(peak - 1, peak + 2)
    curvature, slope, _ = np.polyfit(x[around] - x[peak], y[around], 2)
    return float(x[peak] - slope / (2 * curvature)) if curvature < 0 else float(x[peak])
