"""Compares two levels of a factor other than the method: 1 % of target data against none, or two ranks or models."""

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
from whichlora.errors import OptionError

PAIR_TEST, SAME_TEST, DETECTABLE = "paired t", "TOST", "minimum detectable difference"
UNITS = (
    *("task", "model", "language", "tl_ratio", "seed", "train_size", "composition", "difficulty", "prompt_language"),
    *("chat_template", "scoring", "precision", "quantization"),
)
FOLLOWS = {
    "rank": ("alpha", "variant_options"),
    "target_modules": ("rank", "alpha"),
    "model": ("chat_template",),
    "variant": ("rank", "alpha", "dropout", "target_modules", "layers", "variant_options"),
}
"""What follows from a factor: runs that differ only in the factor may differ in these."""
TRAINING = ("arm", "epochs", "batch_size", "warmup", "weight_decay", "scheduler", "select_on")
"""How long and on what a run trains, in which variants can agree."""
_MAX_BLOCKS = 1000
"""More blocks than any model has, so that layer lists can be parsed without knowing the model."""


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
    """Compare two levels of a column by a paired t test and by TOST at `margin`, and report the minimum detectable
    difference of the t test at 80 % power.

    Runs that differ only in the factor are paired. A combination of language, ratio and seed is one unit, the mean over
    the methods that have both levels, because all methods share the items and the initialisation of a seed. If an
    adapter serves several languages, as at ratio 0, these are one unit. Languages
    are fixed effects: results hold for these languages only, and differences between them count as error. `upper` and
    `lower` are values or patterns such as `Qwen3-8B*`.
    """
    groups = (f"{factor} {upper}", f"{factor} {lower}")

    try:
        upper_units, lower_units = units(table, outcome=outcome, factor=factor, upper=upper, lower=lower, metric=metric)
    except NotTestable as reason:
        note_untestable = f"no test: {reason}"
        tests = (PAIR_TEST, SAME_TEST, DETECTABLE)
        return [
            Record(outcome=outcome, analysis="contrast", test=t, groups=groups, note=note_untestable) for t in tests
        ]
    t_test = partial(paired_t, upper_units, lower_units, alpha=alpha)
    same_test = partial(tost, upper_units, lower_units, margin, alpha)
    note = "runs that differ only in this; n units of language, ratio and seed, means over methods; these languages"
    question = f"equivalence within {points(margin)}; {1 - 2 * alpha:.0%} CI"
    return [
        attempt(t_test, outcome, "contrast", PAIR_TEST, groups, note),
        attempt(same_test, outcome, "contrast", SAME_TEST, groups, question),
        attempt(lambda: _detectable(t_test(), alpha), outcome, "contrast", DETECTABLE, groups, "power 80%; " + note),
    ]


def units(
    table: pd.DataFrame,
    *,
    outcome: str,
    factor: str,
    upper: str,
    lower: str,
    metric: str = "f1",
    also: Sequence[str] = (),
) -> tuple[pd.Series[float], pd.Series[float]]:
    """Return the values of the two levels, aligned by unit.

    Args:
        also: further columns of a unit.

    Raises:
        NotTestable: the table lacks the column or a level, or no two runs differ only in the factor.
    """
    frame = spread_english(rows(table, outcome, metric))
    if factor not in frame:
        raise NotTestable(f"the runs have no {factor}")
    unit_columns = [c for c in (*UNITS, *also) if c in frame and c != factor and c not in FOLLOWS.get(factor, ())]
    identity = [c for c in _identity_columns(frame, factor) if c not in also]
    sides = []
    for level in (upper, lower):
        side = frame[[same_level(factor, value, level) for value in frame[factor]]]
        if side.empty:
            raise NotTestable(f"there are no runs with {factor} {level}")
        sides.append(side.groupby([*identity, *unit_columns], dropna=False)["value"].mean())
    pair = pd.concat(sides, axis=1, keys=("upper", "lower"), join="inner")
    if pair.empty:
        raise NotTestable(f"no two runs differ in {factor} alone, {upper} and {lower}")
    unit = pair.groupby(level=unit_columns, dropna=False).mean() if unit_columns else pair
    if "language" in unit_columns:
        unit = _merge_languages(unit, frame, factor, (upper, lower))
    return unit["upper"], unit["lower"]


def _merge_languages(unit: pd.DataFrame, frame: pd.DataFrame, factor: str, levels: Sequence[str]) -> pd.DataFrame:
    """Merge the languages of units in which one adapter has results in several: these are one adapter's luck."""
    names = [str(name) for name in unit.index.names]
    if "adapter" not in frame:
        return unit
    others = [name for name in names if name != "language"]
    at_level = [any(same_level(factor, value, level) for level in levels) for value in frame[factor]]
    owned = frame[np.array(at_level) & frame["adapter"].notna() & (frame["adapter"] != "")]
    languages = owned.groupby([*others, "adapter"], dropna=False)["language"].nunique().reset_index()
    shared = languages.groupby(others, dropna=False)["language"].max() > 1
    rows = unit.reset_index()
    merged = shared.reindex(pd.MultiIndex.from_frame(rows[others]) if len(others) > 1 else rows[others[0]])
    rows["language"] = rows["language"].mask(merged.fillna(False).to_numpy(dtype=bool), "")
    return rows.groupby(names, dropna=False)[["upper", "lower"]].mean()


def _identity_columns(frame: pd.DataFrame, factor: str) -> list[str]:
    """Return the columns in which two runs of a pair agree, besides those of the unit.

    Another hyperparameter must not change with the one that is looked at. Where the factor is none (a ratio, a model),
    the method's name holds what tells apart runs in one cell, and what a tuned arm has from cell to cell may change.
    """
    if factor in SETTINGS:
        held = ("variant", "arm", *(c for c in SETTINGS if c != factor and c not in FOLLOWS.get(factor, ())))
    else:
        held = ("variant", "arm") if factor in ("variant", "arm") else ("method",)
    return [c for c in held if c in frame and c != factor] or ["method"]


def paired_t(first: ArrayLike, second: ArrayLike, alpha: float = 0.05) -> Result:
    """Paired t test; the effect is the mean difference with its interval.

    Raises:
        NotTestable: fewer than two pairs, or the same difference in all of them.
    """
    d = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if len(d) < 2:
        raise NotTestable(f"there is {len(d) or 'no'} pair, two are needed")
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        raise NotTestable("the difference is the same in every pair")
    result = stats.ttest_1samp(d, 0)
    low, high = result.confidence_interval(1 - alpha)
    return Result(
        float(result.statistic),
        (float(result.df),),
        float(result.pvalue),
        float(d.mean()),
        (float(low), float(high)),
        len(d),
    )


def _detectable(t_test: Result, alpha: float) -> Result:
    if not t_test.statistic or t_test.effect is None or t_test.df is None:
        raise NotTestable("the mean difference is zero to the last digit")
    return Result(effect=detectable_from_error(t_test.effect / t_test.statistic, t_test.df[0], alpha=alpha), n=t_test.n)


def same_level(factor: str, value: object, level: str) -> bool:
    """Return whether a value matches a level, or one of several separated by "|".

    Numbers are compared by value, layers by the blocks that they select, texts by pattern.
    """
    if "|" in level:
        return any(same_level(factor, value, part.strip()) for part in level.split("|"))
    if factor == "layers":
        try:
            return parse_layers(str(value), _MAX_BLOCKS) == parse_layers(level, _MAX_BLOCKS)
        except OptionError:  # full fine-tuning has no layers, and runs of other programs may name them otherwise
            return fnmatchcase(str(value), level)
    try:
        return float(str(value)) == float(level)
    except ValueError:
        return fnmatchcase(str(value), level)


def spread_english(frame: pd.DataFrame) -> pd.DataFrame:
    """Copy English results that several languages share to each of these languages, so that they can be paired."""
    if frame.empty:
        return frame
    languages: Sequence[str] = sorted(set(frame["language"]) - {""})
    shared = frame[frame["language"] == ""]
    if shared.empty or not languages:
        return frame
    return pd.concat([frame[frame["language"] != ""], *(shared.assign(language=name) for name in languages)])
