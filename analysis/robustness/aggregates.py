"""Aggregate scores that single bad runs do not dominate, with intervals over seeds.

Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (NeurIPS 2021). Strata are the
blocks (their tasks), runs are the seeds of a method in a block. As there, intervals are percentiles of the bootstrap;
with three seeds they are too narrow, because draws of n seeds have (n - 1) / n of their variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.records import NotTestable, Record
from analysis.stats.cells import cells, enumerate_few, pairs
from analysis.stats.units import arrange

Array = NDArray[np.float64]
ANALYSIS, IQM, PLAIN, IMPROVEMENT = "aggregates", "interquartile mean", "plain mean", "probability of improvement"
DRAWS = 2000


@dataclass(frozen=True)
class Strata:
    """The runs of a method by block.

    Attributes:
        values: (runs,) the scores, block by block.
        sizes: (blocks,) the number of runs in each block.
    """

    values: Array
    sizes: NDArray[np.int64]

    def draw(self, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return positions of runs drawn with replacement within each block, of shape (draws, runs)."""
        starts = np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        size = np.repeat(self.sizes, self.sizes)
        return np.asarray(starts + (rng.random((draws, len(self.values))) * size).astype(np.int64))

    def counts(self, positions: NDArray[np.int64]) -> Array:
        """Return how often each run is among the positions of each draw, of shape (draws, runs)."""
        counts = np.zeros(positions.shape)
        np.add.at(counts, (np.arange(len(positions))[:, None], positions), 1)
        return counts


class Profile(NamedTuple):
    """A performance profile: at each score, the share of runs above it, with its interval."""

    scores: Array
    share: Array
    low: Array
    high: Array


def strata(table: pd.DataFrame, outcome: str) -> tuple[dict[str, Strata], str]:
    """Return the runs of each method in the blocks that all methods have, and a note on blocks left out.

    The results of one adapter are one run, their mean.

    Raises:
        NotTestable: there are no runs, or no block has all methods.
    """
    layout = arrange(cells(table, outcome).units)
    if not len(layout.methods):
        raise NotTestable("there are no runs")
    known = ~np.isnan(layout.values)
    complete = np.asarray(known.any(axis=2).all(axis=0))
    if not complete.any():
        raise NotTestable("no block has all methods")
    missing = [name for name, ok in zip(layout.blocks, complete, strict=True) if not ok]
    note = f"; without blocks that lack a method: {enumerate_few(missing)}" if missing else ""
    found = {}
    for name, values, present in zip(layout.methods, layout.values, known, strict=True):
        found[name] = Strata(values[complete][present[complete]], present[complete].sum(axis=1))
    return found, note


def aggregates(table: pd.DataFrame, *, outcome: str, alpha: float = 0.05, draws: int = DRAWS) -> list[Record]:
    """Return the interquartile mean and the mean of each method, and the probability of improvement of each pair."""
    try:
        by_method, note = strata(table, outcome)
        if all((runs.sizes < 2).all() for runs in by_method.values()):
            raise NotTestable("no method has two seeds in a block")
    except NotTestable as reason:
        text = f"no test: {reason}"
        return [Record(outcome=outcome, analysis=ANALYSIS, test=IQM, groups=(), note=text)]
    rng = np.random.default_rng(2021)
    drawn = {name: runs.draw(draws, rng) for name, runs in by_method.items()}
    levels = [alpha / 2, 1 - alpha / 2]
    records = []
    for test, statistic in ((IQM, interquartile_mean), (PLAIN, _mean)):
        for name, runs in by_method.items():
            low, high = np.quantile(statistic(runs.values[drawn[name]]), levels)
            text = f"points, over all blocks; interval over seeds; n runs{note}"
            records.append(_record(outcome, test, (name,), statistic(runs.values), low, high, len(runs.values), text))
    for a, b in pairs(list(by_method)):
        x, y = by_method[a], by_method[b]
        wins = _wins(x, y)
        by_draw = ((x.counts(drawn[a]) @ wins) * y.counts(drawn[b])).sum(axis=1)
        low, high = np.quantile(by_draw, levels)
        text = (
            "that a run of the first is better than one of the second in the same block, ties half; mean over blocks; "
            f"interval over seeds; n blocks{note}"
        )
        records.append(_record(outcome, IMPROVEMENT, (a, b), wins.sum(), low, high, len(x.sizes), text))
    return records


def interquartile_mean(values: ArrayLike) -> Array:
    """Return the mean without the lowest and the highest quarter, along the last axis."""
    return np.asarray(stats.trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1))


def probability_of_improvement(first: Strata, second: Strata) -> float:
    """Return the probability that a run of the first is better than one of the second, as a mean over blocks.

    In a block it is the statistic of Mann and Whitney divided by the number of pairs of runs.
    """
    return float(_wins(first, second).sum())


def profile(runs: Strata, scores: ArrayLike, *, alpha: float = 0.05, draws: int = DRAWS, seed: int = 2021) -> Profile:
    """Return the share of runs above each score, blocks weighted alike, with pointwise bootstrap intervals."""
    levels = np.asarray(scores, dtype=float)
    weights = np.repeat(1 / (len(runs.sizes) * runs.sizes), runs.sizes)
    above = (runs.values[:, None] > levels) * weights[:, None]
    by_draw = runs.counts(runs.draw(draws, np.random.default_rng(seed))) @ above
    low, high = np.quantile(by_draw, [alpha / 2, 1 - alpha / 2], axis=0)
    return Profile(levels, above.sum(axis=0), low, high)


def _wins(first: Strata, second: Strata) -> Array:
    """Return (runs of the first, runs of the second): what each pair in the same block adds to the probability."""
    block_of_first, block_of_second = (np.repeat(np.arange(len(s.sizes)), s.sizes) for s in (first, second))
    difference = first.values[:, None] - second.values
    weights = 1 / (len(first.sizes) * first.sizes[block_of_first][:, None] * second.sizes[block_of_second])
    same_block = block_of_first[:, None] == block_of_second
    return np.asarray(((difference > 0) + 0.5 * (difference == 0)) * same_block * weights)


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


def _record(
    outcome: str,
    test: str,
    groups: tuple[str, ...],
    effect: ArrayLike,
    low: float,
    high: float,
    n: int,
    note: str,
) -> Record:
    return Record(
        outcome=outcome,
        analysis=ANALYSIS,
        test=test,
        groups=groups,
        effect=float(np.asarray(effect)),
        interval=(float(low), float(high)),
        n=n,
        note=note,
    )
