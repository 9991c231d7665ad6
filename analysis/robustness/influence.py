"""Leave one out: which single runs and seeds decide what the first screen says of the methods.

The primary analysis is repeated without each run (an adapter with all its results) and without each seed, on arrays of
many designs at once. A conclusion is a pair that differs, a pair that is equivalent within the margin, or a method that
is shown to be within the margin of the best. Without a run the critical value of the full design is kept; without a
seed it is that of a complete design of the remaining size. A pair that cannot be tested in what remains gives no
change.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records import NotTestable, Record
from analysis.stats.best import worse_by_margin
from analysis.stats.cells import Cells, cells, run_label
from analysis.stats.differences import LIKE_THESE, Comparison, compare
from analysis.stats.equivalence import one_sided
from analysis.stats.moderated import least_p, moderated
from analysis.stats.multiplicity import holm
from analysis.stats.units import adjusted_means, arrange

Array = NDArray[np.float64]
ANALYSIS, RUN, SEED = "influence", "without one run", "without one seed"
COUNT = {RUN: "runs that decide a conclusion", SEED: "seeds that decide a conclusion"}
_CHUNK = 2_000_000
"""Number of paired differences in memory at a time."""


class Conclusions(NamedTuple):
    """What the primary analysis concludes in many designs.

    Attributes:
        differ: (designs, pairs) whether a pair differs significantly.
        same: (designs, pairs) whether it is equivalent within the margin.
        near: (designs, methods) whether a method is shown to be at most the margin worse than every other.
        tested: (designs, pairs) whether the pair can be tested.
    """

    differ: NDArray[np.bool_]
    same: NDArray[np.bool_]
    near: NDArray[np.bool_]
    tested: NDArray[np.bool_]


@dataclass(frozen=True)
class _Outcome:
    """The units of an outcome, the adapter of each, and how they are compared."""

    name: str
    methods: tuple[str, ...]
    blocks: tuple[str, ...]
    seeds: tuple[object, ...]
    values: Array
    adapters: dict[tuple[str, str], tuple[int, int, int]]
    compared: Comparison
    scope: str
    margin: float

    def conclude(self, values: Array, null: Array | None = None, alpha: float = 0.05) -> Conclusions:
        """Return the conclusions from values of shape (designs, methods, blocks, seeds)."""
        compared = self.compared if null is None else replace(self.compared, null=null)
        first, second = compared.pairs.T
        units = _cell_means(values, self.values)[:, :, None] if self.scope == LIKE_THESE else values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # designs in which no pair can be tested
            effect, error, df, p = moderated(units[:, first] - units[:, second])
            _, p_same = one_sided(effect, error, df, self.margin)
            differ = p < compared.critical(alpha)
        same, tested = np.zeros_like(differ), np.isfinite(p)
        for row, p_of_design, known in zip(same, p_same, tested, strict=True):
            row[known] = holm(p_of_design[known]) < alpha
        worse = worse_by_margin(compared.pairs, effect, error, df, self.margin, len(self.methods))
        near = np.array([holm(row) < alpha for row in worse])
        return Conclusions(differ, same, near, tested)


def influence(tables: Mapping[str, pd.DataFrame], *, scope: str, margin: float, alpha: float = 0.05) -> list[Record]:
    """Return a record for each run and seed without which a conclusion on some outcome changes, and their numbers.

    The note of a record says what changes.

    Args:
        tables: the results that the primary analysis is of, by outcome.
    """
    outcomes, reasons = [], []
    for name, table in tables.items():
        try:
            outcomes.append(_prepare(cells(table, name), name, scope, margin))
        except NotTestable as reason:
            reasons.append(str(reason))
    if not outcomes:
        return [_record(test, (), f"no test: {reasons[0]}") for test in COUNT.values()]
    full = [outcome.conclude(outcome.values[None], alpha=alpha) for outcome in outcomes]
    records = []
    adapters = sorted({adapter for outcome in outcomes for adapter in outcome.adapters})
    found = [Conclusions(*map(np.concatenate, zip(*_without_runs(o, adapters, alpha), strict=True))) for o in outcomes]
    records += _changes(RUN, [_label(outcomes, adapter) for adapter in adapters], outcomes, full, found)
    seeds = sorted({seed for outcome in outcomes for seed in outcome.seeds}, key=str)
    if min(len(outcome.seeds) for outcome in outcomes) < 3:
        records.append(_record(COUNT[SEED], (), "no test: with fewer than three seeds none can be left out"))
    else:
        found = [_without_seeds(outcome, seeds, alpha) for outcome in outcomes]
        records += _changes(SEED, [f"seed {seed}" for seed in seeds], outcomes, full, found)
    return records


def _prepare(table_cells: Cells, name: str, scope: str, margin: float) -> _Outcome:
    compared = compare(table_cells, scope)
    units = table_cells.units
    layout = arrange(units)
    axes = (layout.methods, layout.blocks, layout.seeds)
    places = [
        pd.Index(names).get_indexer(pd.Index(units[key]))
        for names, key in zip(axes, ("method", "block", "seed"), strict=True)
    ]
    position = list(zip(*(place.tolist() for place in places), strict=True))
    if "adapter" in units and (units["adapter"].notna() & (units["adapter"] != "")).all():
        owner = units["adapter"].astype(str)
    else:
        owner = units["block"] + " " + units["seed"].astype(str)
    keys = zip(units["method"], owner, strict=True)
    return _Outcome(name, *axes, layout.values, dict(zip(keys, position, strict=True)), compared, scope, margin)


def _cell_means(values: Array, full: Array) -> Array:
    """Return the adjusted means of methods by block, (designs, methods, blocks).

    Blocks that are as in the full design are not computed again.
    """
    original = np.stack([_block_means(full[:, block]) for block in range(full.shape[1])], axis=1)
    cell_means = np.repeat(original[None], len(values), axis=0)
    changed = (np.isnan(values) != np.isnan(full)).any(axis=(1, 3))
    for design, block in np.argwhere(changed):
        cell_means[design, :, block] = _block_means(values[design, :, block])
    return cell_means


def _block_means(values: Array) -> Array:
    """Return the adjusted mean of each row; NaN for rows without a value."""
    means = np.full(len(values), np.nan)
    has = ~np.isnan(values).all(axis=1)
    if has.any():
        means[has], _ = adjusted_means(values[has])
    return means


def _without_runs(outcome: _Outcome, adapters: list[tuple[str, str]], alpha: float) -> Iterator[Conclusions]:
    """Yield the conclusions without each adapter, in chunks."""
    size = len(outcome.compared.pairs) * outcome.values[0].size
    step = max(1, _CHUNK // size)
    for start in range(0, len(adapters), step):
        part = adapters[start : start + step]
        values = np.repeat(outcome.values[None], len(part), axis=0)
        for design, adapter in enumerate(part):
            if adapter in outcome.adapters:
                values[(design, *outcome.adapters[adapter])] = np.nan
        yield outcome.conclude(values, alpha=alpha)


def _without_seeds(outcome: _Outcome, seeds: list[object], alpha: float) -> Conclusions:
    """Return the conclusions without each seed."""
    values = np.repeat(outcome.values[None], len(seeds), axis=0)
    for design, seed in enumerate(seeds):
        if seed in outcome.seeds:
            values[design, :, :, outcome.seeds.index(seed)] = np.nan
    null = None
    if outcome.scope != LIKE_THESE:
        methods, blocks, n = outcome.values.shape
        shape = (methods, blocks, n - 1)
        null = least_p(np.zeros(shape, dtype=bool).tobytes(), shape)
    return outcome.conclude(values, null, alpha)


def _changes(
    test: str,
    names: list[str],
    outcomes: list[_Outcome],
    full: list[Conclusions],
    found: list[Conclusions],
) -> list[Record]:
    """Return a record for each left-out run or seed that changes a conclusion, and the number of them."""
    records = []
    changes: list[list[str]] = [[] for _ in names]
    for outcome, before, after in zip(outcomes, full, found, strict=True):
        pairs = [f"{outcome.methods[i]} and {outcome.methods[j]}" for i, j in outcome.compared.pairs]
        kinds = (
            (before.differ, after.differ, "{} no longer differ", "{} differ"),
            (before.same, after.same, "{} are no longer equivalent", "{} are equivalent"),
        )
        for was, now, lost, gained in kinds:
            for design, pair in np.argwhere((was != now) & before.tested & after.tested):
                text = (lost if was[0, pair] else gained).format(pairs[pair])
                changes[design].append(f"{outcome.name}: {text}")
        untested = np.asarray((before.tested & ~after.tested).any(axis=1))
        for design, method in np.argwhere((before.near != after.near) & ~untested[:, None]):
            text = f"is {'no longer ' * bool(before.near[0, method])}within the margin of the best"
            changes[design].append(f"{outcome.name}: {outcome.methods[method]} {text}")
    changed = sum(map(bool, changes))
    for name, texts in zip(names, changes, strict=True):
        if texts:
            records.append(_record(test, (name,), "; ".join(texts), n=len(texts)))
    note = f"n of {len(names)}; effect is the percentage"
    return [_record(COUNT[test], (), note, n=changed, effect=100 * changed / len(names)), *records]


def _label(outcomes: list[_Outcome], adapter: tuple[str, str]) -> str:
    """Return the name of an adapter by method, block and seed."""
    outcome = next(o for o in reversed(outcomes) if adapter in o.adapters)
    method, block, seed = outcome.adapters[adapter]
    return run_label(outcome.methods[method], outcome.blocks[block], outcome.seeds[seed])


def _record(test: str, groups: tuple[str, ...], note: str, n: int | None = None, effect: float | None = None) -> Record:
    return Record(outcome="", analysis=ANALYSIS, test=test, groups=groups, note=note, n=n, effect=effect)
