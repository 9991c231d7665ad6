"""The derived views as records: means with intervals, fronts, agreement and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.measures import scores
from analysis.records import Record
from analysis.stats.cells import format_level
from analysis.stats.contrasts import contrast
from analysis.stats.distributions import half_width

COSTS = ("adapter/trainable_parameters", "train/seconds", "gpu/memory_max_mb", "gpu/energy_j")
"""Not the host's memory: a process that trains one adapter after the other keeps some of it."""
_FEWEST = 3
"""Values for an interval: of two it spans more than F1 can be."""
CELL = ("method", "language", "tl_ratio")


def derived(table: pd.DataFrame, *, outcome: str, margin: float = 1.0) -> list[Record]:
    """Return what the views say of an outcome: gain, what is above the floor where runs have floors, retention (en),
    transfer gap and gain per percent (tl), each by cell and by method; fronts of F1 against costs; tuned against
    default values.
    """
    frames = {"gain": (scores.gain(table, outcome=outcome), "test minus base, points")}
    if len(above := scores.above_floor(table, outcome=outcome)):
        frames["above the floor"] = (above, "test minus the best floor, points")
    if outcome == "en":
        frames["retention"] = (scores.retention(table), "English F1 minus that at ratio 0, points")
    else:
        frames["transfer gap"] = (scores.transfer_gap(table), "English minus target F1, points")
        frames["gain per percent"] = (
            scores.gain_per_percent(table),
            "target F1 minus that at ratio 0, points a percent",
        )
    found = []
    for analysis, (frame, note) in frames.items():
        found += summarise(frame, analysis=analysis, outcome=outcome, by=CELL, note=note)
        if len(frame):
            found += summarise(frame, analysis=analysis, outcome=outcome, by=("method",), note=note)
    for cost in COSTS:
        found += pareto_records(table, outcome=outcome, cost=cost)
    for untuned in ("matched", "recommended"):
        if "arm" in table and {"tuned", untuned} <= set(table["arm"]):
            made = contrast(table, outcome=outcome, factor="arm", upper="tuned", lower=untuned, margin=margin)
            found += [Record(**{**vars(record), "analysis": "tuned"}) for record in made]
    return found


def item_records(items: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Return agreement of each pair (effect: percent, statistic: kappa), calibration of each method (effect: ECE)."""
    found = [
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
    found += [
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
    return found


def pareto_records(table: pd.DataFrame, *, outcome: str, cost: str) -> list[Record]:
    """Return for each method its mean cost (effect) and F1 (statistic), and whether it is on the front (note)."""
    return [
        Record(
            outcome=outcome,
            analysis="pareto",
            test=cost,
            groups=(row["method"],),
            statistic=row["value"],
            effect=row["cost"],
            n=row["n"],
            note="on the front" if row["front"] else "another is cheaper and at least as good",
        )
        for row in scores.pareto(table, outcome=outcome, cost=cost).to_dict("records")
    ]


def summarise(
    frame: pd.DataFrame, *, analysis: str, outcome: str, by: Sequence[str] = CELL, note: str = ""
) -> list[Record]:
    """Return the mean of a view's column `value` for each combination of `by`, with the 95 % t interval.

    The interval is over seeds; where `by` leaves out language or ratio it is over the means of language x ratio.
    """
    if frame.empty:
        why = "no test: there are no such runs"
        return [Record(outcome=outcome, analysis=analysis, test="mean", groups=(), note=why)]
    inner = [c for c in scores.RUN if c in frame and c not in by and c not in ("seed", "method")]
    coarse = bool({"language", "tl_ratio"} & set(inner))
    values = frame.groupby([*by, *inner], dropna=False)["value"].mean().reset_index() if coarse else frame
    text = f"{note}; n {'blocks of language x ratio' if coarse else 'runs'}".lstrip("; ")
    return [
        _mean(group["value"].to_numpy(dtype=float), analysis, outcome, tuple(map(format_level, key)), text)
        for key, group in values.groupby(list(by), sort=True, dropna=False)
    ]


def _mean(values: NDArray[np.float64], analysis: str, outcome: str, groups: tuple[str, ...], note: str) -> Record:
    n, mean = len(values), float(values.mean())
    half = float(half_width(values.std(ddof=1), n)) if n >= _FEWEST else np.nan
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
