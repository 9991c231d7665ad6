"""Tests whether a factor such as the batch size changes the lead of one variant over another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.comparisons import above_floor
from analysis.claims.parts import judge_parts, parts_of_differences, untested_part
from analysis.claims.relations import Relations, relations_of
from analysis.claims.verdicts import Verdict, undecided
from analysis.records import NotTestable
from analysis.stats.cells import format_level, in_points, rows
from analysis.stats.contrasts import TRAINING, units

Array = NDArray[np.float64]


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
    reversed: bool = False,
) -> Verdict:
    """Test whether the lead of one variant over another is greater at the highest value of a factor than at the lowest.

    Args:
        order: relations of variants such as "full > lora": the lead of the first over the second is greater.
        factor: a column of numbers, such as batch_size. The runs of a variant that are compared agree in all other
            hyperparameters, those of two variants in how long and on what they train.
        hold: in how many of the relations it must be so.
        reversed: whether the claim is that the lead changes sides: at the highest value the first is better, and at
            the lowest the second.
    """
    table = above_floor(table, outcome, factor, metric)
    frame = rows(table, outcome, metric)
    if factor not in frame or "variant" not in frame:
        return undecided(f"the runs have no {factor if factor not in frame else 'variant'}")
    relations = relations_of(order, frame, "variant", metric)
    differences: list[tuple[str, Relations, Array]] = []
    parts = []
    for relation in relations:
        first, _, second = relation
        try:
            leads = _leads(table, outcome, first, second, factor, metric)
        except NotTestable as reason:
            parts.append(untested_part(f"{first} - {second}", str(reason)))
            continue
        if reversed:
            values = np.stack([leads.upper, -leads.lower])[:, None, :]
            differences.append((f"{first} - {second}", [relation, (second, ">", first)], values))
        else:
            differences.append((f"{first} - {second}", [relation], (leads.upper - leads.lower)[None, None, :]))
    parts += parts_of_differences(differences, margin if in_points(metric) else 0.0, outcome)
    return judge_parts(parts, hold, alpha, outcome=outcome, unit="pairs of variants")


class _Leads(NamedTuple):
    """The lead of one variant over another at the highest and the lowest common value of a factor, by unit."""

    upper: Array
    lower: Array


def _leads(table: pd.DataFrame, outcome: str, first: str, second: str, factor: str, metric: str) -> _Leads:
    """Return the leads of `first` over `second` in the units that both have.

    Raises:
        NotTestable: the two have fewer than two values in common, or no runs that can be paired.
    """
    of_variant = {name: table[table["variant"] == name] for name in (first, second)}
    levels = sorted(set.intersection(*(set(part[factor].dropna().astype(float)) for part in of_variant.values())))
    if len(levels) < 2:
        raise NotTestable(f"{first} and {second} have fewer than two values of {factor} in common")
    ends = {"upper": format_level(levels[-1]), "lower": format_level(levels[0])}
    held = [column for column in TRAINING if column != factor]
    found = {
        name: pd.concat(
            units(part, outcome=outcome, factor=factor, metric=metric, also=held, **ends), axis=1, keys=list(ends)
        )
        for name, part in of_variant.items()
    }
    leads = (found[first] - found[second]).dropna()
    if leads.empty:
        raise NotTestable(f"no two runs of {first} and {second} differ in the variant alone")
    return _Leads(leads["upper"].to_numpy(dtype=float), leads["lower"].to_numpy(dtype=float))
