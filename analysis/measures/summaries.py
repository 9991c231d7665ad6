"""Turns derived scores into records: means with intervals, Pareto fronts, agreement and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.measures import scores
from analysis.measures.costs import pareto_records
from analysis.naming import names_of
from analysis.records import Record
from analysis.stats.cells import format_level
from analysis.stats.contrasts import contrast
from analysis.stats.distributions import half_width

_MIN_VALUES = 3
"""Minimum number of values for an interval: with two values it can exceed the range of F1."""
CELL = ("method", "language", "tl_ratio")


def derived(table: pd.DataFrame, *, outcome: str, margin: float = 1.0) -> list[Record]:
    """Return the derived scores of an outcome: gain, F1 above the floor (if runs have floors), retention (en), transfer
    gap and gain per percent (tl), each by cell and by method; Pareto fronts of F1 against costs; tuned against default
    values.
    """
    names = names_of(table)
    frames = {"gain": (scores.gain(table, outcome=outcome), "test minus base, points")}
    if len(above := scores.above_floor(table, outcome=outcome)):
        frames["above the floor"] = (above, "test minus the best floor, points")
    if outcome == "en":
        frames["retention"] = (scores.retention(table), names.fill("{source} {score} minus that at ratio 0, points"))
    elif "en" in set(table["outcome"]):  # a study in one language has no transfer
        frames["transfer gap"] = (
            scores.transfer_gap(table),
            names.fill(f"{{source}} minus {names.short('tl')} {{score}}, points"),
        )
        frames["gain per percent"] = (
            scores.gain_per_percent(table),
            names.fill(f"{names.short('tl')} {{score}} minus that at ratio 0, points a percent"),
        )
    records = []
    for analysis, (frame, note) in frames.items():
        records += summarise(frame, analysis=analysis, outcome=outcome, by=CELL, note=note)
        if len(frame):
            records += summarise(frame, analysis=analysis, outcome=outcome, by=("method",), note=note)
    records += pareto_records(table, outcome=outcome)
    for untuned in ("matched", "recommended"):
        if "arm" in table and {"tuned", untuned} <= set(table["arm"]):
            comparison = contrast(table, outcome=outcome, factor="arm", upper="tuned", lower=untuned, margin=margin)
            records += [Record(**{**vars(record), "analysis": "tuned"}) for record in comparison]
    return records


def item_records(items: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Return agreement by pair (effect: percent, statistic: kappa) and calibration by method (effect: ECE)."""
    records = [
        Record(
            outcome=outcome,
            analysis="agreement",
            test="both right or both wrong",
            groups=(row["first"], row["second"]),
            statistic=row["kappa"],
            effect=100 * row["agreement"],
            n=row["n"],
            note=f"percent of answers; only {row['first']} right {row['first_only']:.1%}, only {row['second']} "
            f"right {row['second_only']:.1%}; the statistic is Cohen's kappa",
        )
        for row in scores.agreement(items, outcome=outcome).to_dict("records")
    ]
    note = f"expected calibration error, points, {scores.BINS} bins"
    records += [
        Record(
            outcome=outcome,
            analysis="calibration",
            test="ECE",
            groups=(row["method"],),
            effect=row["value"],
            n=row["n"],
            note=note,
        )
        for row in scores.calibration(items, outcome=outcome).to_dict("records")
    ]
    return records


def summarise(
    frame: pd.DataFrame, *, analysis: str, outcome: str, by: Sequence[str] = CELL, note: str = ""
) -> list[Record]:
    """Return the mean of the column `value` for each combination of `by`, with the 95 % t interval.

    The interval is over seeds; if `by` omits language or ratio, it is over the means of language x ratio.
    """
    if frame.empty:
        reason = "no test: there are no such runs"
        return [Record(outcome=outcome, analysis=analysis, test="mean", groups=(), note=reason)]
    averaged = [c for c in scores.RUN if c in frame and c not in by and c not in ("seed", "method")]
    over_blocks = bool({"language", "tl_ratio"} & set(averaged))
    values = frame.groupby([*by, *averaged], dropna=False)["value"].mean().reset_index() if over_blocks else frame
    text = f"{note}; n {'blocks of language x ratio' if over_blocks else 'runs'}".lstrip("; ")
    return [
        _mean(group["value"].to_numpy(dtype=float), analysis, outcome, tuple(map(format_level, key)), text)
        for key, group in values.groupby(list(by), sort=True, dropna=False)
    ]


def _mean(values: NDArray[np.float64], analysis: str, outcome: str, groups: tuple[str, ...], note: str) -> Record:
    n, mean = len(values), float(values.mean())
    half = float(half_width(values.std(ddof=1), n)) if n >= _MIN_VALUES else np.nan
    return Record(
        outcome=outcome,
        analysis=analysis,
        test="mean",
        groups=groups,
        effect=mean,
        interval=(mean - half, mean + half),
        n=n,
        note=note,
    )
