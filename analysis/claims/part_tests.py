"""Tests of claims that hold in a number of parts: configurations of the design, measures, or languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.comparisons import above_floor
from analysis.claims.parts import (
    ANALYSIS,
    Part,
    judge_parts,
    parts_of_differences,
    untested_part,
)
from analysis.claims.relations import Relations, relations_of, resolve_methods
from analysis.claims.verdicts import Verdict, undecided
from analysis.columns import CONDITIONS
from analysis.records import NotTestable, Record
from analysis.stats.cells import BLOCK_COLUMNS, cells, enumerate_few, format_level, in_points, labels, rows
from analysis.stats.conjunctions import directions, partial_conjunction
from analysis.stats.contrasts import spread_english, units
from analysis.stats.differences import THESE, scoped_values
from analysis.stats.units import arrange
from whichlora.data.language_names import join_names

Array = NDArray[np.float64]


def configurations(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    order: str,
    hold: str | int,
    factor: str = "method",
    by: list[str] | None = None,
    metric: str = "f1",
    of: int = 1,
) -> Verdict:
    """Test whether an order holds in a number of configurations; in each, the error is that of its seeds.

    Args:
        order: as in the test `order`; ">=" means less than the margin worse.
        hold: all, most, "all but 3", or a number of configurations.
        factor: the column that holds the levels.
        by: the columns that make up a configuration: by default method and language, for methods the language.
        of: the number of configurations that the claim is about; with fewer it is undecided.
    """
    by = by if by is not None else ["language"] if factor == "method" else ["method", "language"]
    table = above_floor(table, outcome, factor, metric)
    relations = relations_of(order, rows(table, outcome, metric), factor, metric)
    spread = spread_english(table[table["outcome"] == outcome])
    if missing := [column for column in by if column not in spread]:
        return undecided(f"the runs have no {enumerate_few(missing)}")
    differences: list[tuple[str, Relations, Array]] = []
    parts = []
    for key, part in spread.groupby(by, sort=True) if by else [((), spread)]:
        name = " ".join(format_level(value) for value in key) or "all runs"
        try:
            values = _differences(part, outcome, relations, factor, metric)
            differences.append((name, relations, values))
        except NotTestable as reason:
            parts.append(untested_part(name, str(reason)))
    independent = factor != "method" and len(relations) == 1
    parts += parts_of_differences(differences, margin if in_points(metric) else 0.0, outcome, independent=independent)
    return judge_parts(parts, hold, alpha, outcome=outcome, unit="configurations", of=of)


def measures(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    order: str,
    metrics: list[str],
    hold: str | int,
) -> Verdict:
    """Test whether methods are in an order by a number of measures, such as costs.

    Args:
        order: ">" means that the value of the measure is greater, which of a cost is worse.
        metrics: the columns of the measures.
        hold: all, most, "all but 1", or a number of measures.
    """
    parts: list[Part] = []
    for metric in metrics:
        try:
            relations = relations_of(order, rows(table, outcome, metric), metric=metric)
            parts += parts_of_differences(
                [(metric, relations, _method_differences(table, outcome, relations, metric, scope))], 0.0, outcome
            )
        except NotTestable as reason:
            parts.append(untested_part(metric, str(reason)))
    return judge_parts(parts, hold, alpha, outcome=outcome, unit="measures")


def best(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    methods: dict[str, str],
    over: str = "tl_ratio",
    metric: str = "f1",
) -> Verdict:
    """Test whether a method has the highest value in each language, over all levels of another factor.

    It has if at some level its mean exceeds those of all other methods at all levels, and has not if one of these
    exceeds its means at all levels.

    Args:
        methods: the best method by language.
        over: the column over whose levels the maximum is taken.
    """
    frame = rows(above_floor(table, outcome, "method", metric), outcome, metric)
    if frame.empty or over not in frame:
        return undecided(f"the runs have no {metric if frame.empty else over}")
    setting = [column for column in (*BLOCK_COLUMNS, *CONDITIONS) if column not in ("language", over)]
    frame = frame.assign(block=labels(frame, list(dict.fromkeys(setting))))
    parts = []
    for language, name in methods.items():
        of_language, title = frame[frame["language"] == language], join_names([language])
        try:
            best_method = resolve_methods([name], of_language)[name]
        except NotTestable as reason:
            parts.append(untested_part(title, str(reason)))
            continue
        parts.append(_best_part(of_language, best_method, over, title, margin, outcome))
    return judge_parts(parts, "all", alpha, outcome=outcome, unit="languages")


def _best_part(frame: pd.DataFrame, method: str, over: str, title: str, margin: float, outcome: str) -> Part:
    names = frame["method"].astype(str) + f" at {over} " + frame[over].map(format_level)
    method_of = dict(zip(names, frame["method"].astype(str), strict=True))
    units_of_cell = frame.assign(method=names).groupby(["method", "block", "seed"])["value"].mean()
    layout = arrange(units_of_cell.reset_index())
    own = [i for i, name in enumerate(layout.methods) if method_of[name] == method]
    other = [i for i, name in enumerate(layout.methods) if method_of[name] != method]
    if not other:
        return untested_part(title, "there is one method only")
    paired = layout.values[own][:, None] - layout.values[other][None, :]
    found = directions(paired.reshape(-1, *paired.shape[2:]))
    shape = len(own), len(other)
    above, below = found.above().reshape(shape), found.below(margin).reshape(shape)
    means = np.nanmean(layout.values, axis=(1, 2))
    highest_other = other[int(np.argmax(means[other]))]
    highest = own[int(np.argmax(means[own]))]
    difference = float(means[highest] - means[highest_other])
    holds = partial_conjunction(above.max(axis=1), 1)
    record = Record(
        outcome=outcome,
        analysis=ANALYSIS,
        test="highest of all",
        groups=(title, layout.methods[highest], layout.methods[highest_other]),
        p=holds,
        effect=difference,
        n=paired.shape[-1],
        note="effect: the highest mean of the method minus that of the others; p that it is the highest; n seeds",
    )
    tested = bool((~np.isnan(found.errors.error) | ~np.isnan(found.constant)).any())
    return Part(
        title,
        holds,
        partial_conjunction(below.max(axis=0), 1),
        seen=difference > 0,
        records=(record,) if tested else (),
        untested="" if tested else "fewer than two seeds in common",
    )


def _differences(part: pd.DataFrame, outcome: str, relations: Relations, factor: str, metric: str) -> Array:
    """Return the differences of each relation: (relations, blocks, replicates).

    Raises:
        NotTestable: a level has no runs that can be paired.
    """
    if factor == "method":
        return _method_differences(part, outcome, relations, metric, THESE)
    paired = []
    for first, _, second in relations:
        upper, lower = units(part, outcome=outcome, factor=factor, upper=first, lower=second, metric=metric)
        paired.append((upper - lower).to_numpy(dtype=float))
    values = np.full((len(paired), 1, max(map(len, paired))), np.nan)
    for row, found in zip(values, paired, strict=True):
        row[0, : len(found)] = found
    return values


def _method_differences(table: pd.DataFrame, outcome: str, relations: Relations, metric: str, scope: str) -> Array:
    """Return the differences of pairs of methods: (relations, blocks, replicates).

    Raises:
        NotTestable: a method has no runs that can be compared.
    """
    table_cells = cells(table, outcome, metric)
    positions: Mapping[str, int] = {name: index for index, name in enumerate(table_cells.methods)}
    named: Sequence[str] = [name for first, _, second in relations for name in (first, second)]
    if missing := sorted({name for name in named if name not in positions}):
        raise NotTestable(f"there are no runs of {enumerate_few(missing)} to compare")
    values = scoped_values(table_cells, scope)
    first = [positions[first] for first, _, _ in relations]
    second = [positions[second] for _, _, second in relations]
    differences: Array = values[first] - values[second]
    return differences
