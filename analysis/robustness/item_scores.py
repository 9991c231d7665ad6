"""Arranges the scores of single test items by adapter, so that adapters and items can be resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records import NotTestable
from analysis.stats.cells import BLOCK_COLUMNS, format_level, labels, rows
from analysis.stats.units import merged_labels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ItemScores:
    """Scores of items by result, in points.

    A part is a block (language and ratio) with a seed; a unit is a seed in a block after the blocks that one adapter
    serves have been merged, so that a unit may have several parts.

    Attributes:
        methods: the names.
        results: (methods, parts) index of the row of `scores`, -1 where there is no result.
        units: (parts,) index of the unit.
        blocks: (units,) index of the block.
        scores: (results, items), NaN where an item has no answer. An item answered in several parts is one column.
    """

    methods: tuple[str, ...]
    results: NDArray[np.int64]
    units: NDArray[np.int64]
    blocks: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Paired:
    """Differences of two methods by unit (adapters with the same block and seed) and item.

    The mean difference is `weights @ means`; with items drawn n times each it is linear in the draws to first order:
    `weights @ (means + contributions @ n)`.

    Attributes:
        means: (units,) mean difference in points.
        contributions: (units, items) of each item to the mean, centred: each row sums to zero.
        weights: (units,) 1 / (blocks x units of the block).
        blocks: (units,) index of the block, in ascending order.
    """

    means: Array
    contributions: NDArray[np.float32]
    weights: Array
    blocks: NDArray[np.int64]


def arrange_items(table: pd.DataFrame, items: pd.DataFrame, outcome: str) -> ItemScores:
    """Arrange the predictions of an outcome.

    Args:
        table: a row per run and outcome; it says which results belong to one adapter.
        items: a row per result and item, with run_id, outcome, id and correct (0 to 1).

    Raises:
        NotTestable: there are no predictions of these runs.
    """
    results = rows(table, outcome)
    known = items[(items["outcome"] == outcome) & items["correct"].notna()] if len(items) else items
    results = results[results["run_id"].isin(set(known["run_id"]))] if len(known) else results.iloc[:0]
    if results.empty:
        raise NotTestable("there are no predictions")
    results = results.assign(method=results["method"].astype(str), block=labels(results, BLOCK_COLUMNS))
    merged = merged_labels(results, BLOCK_COLUMNS, format_level)
    block = pd.factorize(results["block"].map(lambda label: merged.get(label, label)), sort=True)[0]
    seed, seeds = pd.factorize(results["seed"], sort=True)
    part, parts = pd.factorize(pd.MultiIndex.from_arrays([results["block"], seed]), sort=True)
    first_of_part = np.unique(part, return_index=True)[1]
    units, unit = np.unique((block * len(seeds) + seed)[first_of_part], return_inverse=True)
    method, methods = pd.factorize(results["method"], sort=True)
    index = np.full((len(methods), len(parts)), -1, dtype=np.int64)
    index[method, part] = np.arange(len(results))
    position = pd.Index(results["run_id"]).get_indexer(known["run_id"].astype(object))
    keys = [c for c in ("task", "id") if c in known]
    item = known.groupby(keys, observed=True, sort=True).ngroup().to_numpy()
    scores = np.full((len(results), int(item.max()) + 1), np.nan, dtype=np.float32)
    used = position >= 0
    scores[position[used], item[used]] = 100 * known["correct"].to_numpy(dtype=np.float32)[used]
    return ItemScores(tuple(methods), index, unit, units // len(seeds), scores)


def pair_items(data: ItemScores, first: int, second: int) -> Paired:
    """Return the differences of two methods (by index), first minus second.

    Raises:
        NotTestable: they share no adapter with the same block and seed, or no items.
    """
    shared = np.flatnonzero((data.results[first] >= 0) & (data.results[second] >= 0))
    differences = data.scores[data.results[first][shared]] - data.scores[data.results[second][shared]]
    known = ~np.isnan(differences)
    counts = known.sum(axis=1)
    shared, differences, known, counts = (values[counts > 0] for values in (shared, differences, known, counts))
    if not len(shared):
        raise NotTestable("the two methods share no block, seed and item")
    answered = known.any(axis=0)
    if not answered.all():
        differences, known = differences[:, answered], known[:, answered]
    filled = np.where(known, differences, np.float32(0))
    means = filled.sum(axis=1, dtype=float) / counts
    centred = np.where(known, filled - means[:, None].astype(np.float32), np.float32(0))
    centred /= counts[:, None].astype(np.float32)
    units, unit_of = np.unique(data.units[shared], return_inverse=True)
    if len(units) < len(shared):
        share = np.zeros((len(units), len(shared)), dtype=np.float32)
        share[unit_of, np.arange(len(shared))] = 1 / np.bincount(unit_of)[unit_of]
        means, centred = share.astype(float) @ means, share @ centred
    blocks = np.unique(data.blocks[units], return_inverse=True)[1]
    order = np.argsort(blocks, kind="stable")
    blocks, means, centred = blocks[order], means[order], centred[order]
    seeds = np.bincount(blocks)
    return Paired(means, centred, 1 / (len(seeds) * seeds[blocks]), blocks)
