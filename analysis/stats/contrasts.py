"""Levels of a factor other than the method: 1 % of target data against none, one rank or model against another."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from analysis.columns import SETTINGS
from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import points, rows
from analysis.stats.equivalence import tost
from analysis.stats.power import detectable_from_error
from whichlora.config.layers import parse_layers

PAIR_TEST, SAME_TEST, DETECTABLE = "paired t", "TOST", "least difference"
_UNITS = (
    *("task", "model", "language", "tl_ratio", "seed", "train_size", "composition", "difficulty", "prompt_language"),
    *("scoring", "precision", "quantization"),
)
_FOLLOW = {"rank": ("alpha", "variant_options")}
"""Values that are chosen for each rank anew, so that runs which differ in the rank alone may differ in these."""
_MANY = 1000
"""More blocks than any model has, so that layers can be read without knowing the model."""


def contrast(
    table: pd.DataFrame,
    *,
    outcome: str,
    factor: str,
    upper: str,
    lower: str,
    metric: str = "f1",
    margin: float = 1.0,
    alpha: float = 0.05,
) -> list[Record]:
    """Compare two levels of a column by a paired t test and by TOST at `margin`, and tell the least difference that the
    t test sees with a power of 80 %.

    Runs are paired that differ in the factor alone; a pair of language, ratio and seed is one unit, the mean over the
    methods that have both levels, because one seed's item sets and starts are common to all methods. Languages are
    fixed: what is found holds for these, and what differs between them counts as error. `upper` and `lower` are values
    or patterns such as `Qwen3-8B*`.
    """
    groups = (f"{factor} {upper}", f"{factor} {lower}")

    try:
        upper_units, lower_units = units(table, outcome=outcome, factor=factor, upper=upper, lower=lower, metric=metric)
    except NotTestable as reason:
        why = f"no test: {reason}"
        tests = (PAIR_TEST, SAME_TEST, DETECTABLE)
        return [Record(outcome=outcome, analysis="contrast", test=t, groups=groups, note=why) for t in tests]
    t_test = partial(paired_t, upper_units, lower_units, alpha=alpha)
    same_test = partial(tost, upper_units, lower_units, margin, alpha)
    note = "runs that differ in this alone; n units of language, ratio and seed, means over methods; these languages"
    same = f"the same within {points(margin)}? interval of {1 - 2 * alpha:.0%}"
    return [
        attempt(t_test, outcome, "contrast", PAIR_TEST, groups, note),
        attempt(same_test, outcome, "contrast", SAME_TEST, groups, same),
        attempt(lambda: _least(t_test(), alpha), outcome, "contrast", DETECTABLE, groups, "power 80%; " + note),
    ]


def units(
    table: pd.DataFrame, *, outcome: str, factor: str, upper: str, lower: str, metric: str = "f1"
) -> tuple[pd.Series[float], pd.Series[float]]:
    """Return the values of the two levels by unit, aligned.

    Raises:
        NotTestable: the table lacks the column or a level, or no two runs differ in the factor alone.
    """
    frame = _spread_english(rows(table, outcome, metric))
    if factor not in frame:
        raise NotTestable(f"the runs have no {factor}")
    who = _same(frame, factor)
    by = [c for c in _UNITS if c in frame and c != factor]
    sides = []
    for level in (upper, lower):
        side = frame[[same_level(factor, value, level) for value in frame[factor]]]
        if side.empty:
            raise NotTestable(f"there are no runs with {factor} {level}")
        sides.append(side.groupby([*who, *by], dropna=False)["value"].mean())
    pair = pd.concat(sides, axis=1, keys=("upper", "lower"), join="inner")
    if pair.empty:
        raise NotTestable(f"no two runs differ in {factor} alone, {upper} and {lower}")
    unit = pair.groupby(level=by, dropna=False).mean() if by else pair
    return unit["upper"], unit["lower"]


def _same(frame: pd.DataFrame, factor: str) -> list[str]:
    """Return the columns in which two runs of a pair agree, besides those of the unit.

    Another hyperparameter must not change with the one that is looked at. Where the factor is none (a ratio, a model),
    the method's name holds what tells apart runs in one cell, and what a tuned arm has from cell to cell may change.
    """
    if factor in SETTINGS:
        held = ("variant", "arm", *(c for c in SETTINGS if c != factor and c not in _FOLLOW.get(factor, ())))
    else:
        held = ("variant", "arm") if factor in ("variant", "arm") else ("method",)
    return [c for c in held if c in frame and c != factor] or ["method"]


def paired_t(first: ArrayLike, second: ArrayLike, alpha: float = 0.05) -> Result:
    """Paired t test; the effect is the mean difference with its interval.

    Raises:
        NotTestable: fewer than two pairs, or the same difference in all.
    """
    d = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if len(d) < 2:
        raise NotTestable(f"there is {len(d) or 'no'} pair, two are needed")
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        raise NotTestable("the difference is the same in every pair")
    found = stats.ttest_1samp(d, 0)
    low, high = found.confidence_interval(1 - alpha)
    return Result(
        float(found.statistic),
        (float(found.df),),
        float(found.pvalue),
        float(d.mean()),
        (float(low), float(high)),
        len(d),
    )


def _least(found: Result, alpha: float) -> Result:
    if not found.statistic or found.effect is None or found.df is None:
        raise NotTestable("the mean difference is zero to the last digit")
    return Result(effect=detectable_from_error(found.effect / found.statistic, found.df[0], alpha=alpha), n=found.n)


def same_level(factor: str, value: object, level: str) -> bool:
    """Is a value the level that is meant? Numbers by value, layers by the blocks they name, texts by pattern."""
    if factor == "layers":
        return parse_layers(str(value), _MANY) == parse_layers(level, _MANY)
    try:
        return float(str(value)) == float(level)
    except ValueError:
        return fnmatchcase(str(value), level)


def _spread_english(frame: pd.DataFrame) -> pd.DataFrame:
    """Give English results that several languages share to each of them, so that they find their partners."""
    if frame.empty:
        return frame
    languages: Sequence[str] = sorted(set(frame["language"]) - {""})
    shared = frame[frame["language"] == ""]
    if shared.empty or not languages:
        return frame
    return pd.concat([frame[frame["language"] != ""], *(shared.assign(language=name) for name in languages)])
