"""Compares all pairs of methods in many simulated draws at once, by the functions behind the report's first screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.best import worse_by_margin
from analysis.stats.cells import cells
from analysis.stats.differences import LIKE_THESE, SCOPES, THESE, compare
from analysis.stats.equivalence import one_sided
from analysis.stats.moderated import Errors, moderated
from analysis.stats.multiplicity import holm
from analysis.stats.units import adjusted_means, arrange
from benchmarks.simulated.designs import METHODS

MARGIN = 1.0
LEVELS = (0.05, 0.05 / 3)
"""Of the pairs of all blocks, and of those of one of three languages."""


@dataclass(frozen=True)
class Drawn:
    """The pairs of one scope in many draws.

    Attributes:
        means: (draws, methods) adjusted means.
        errors: of the pairs, each (draws, pairs).
        critical: the p of a pair alone that is significant, by level.
    """

    means: NDArray[np.float64]
    errors: Errors
    critical: Mapping[float, float]

    def differ(self, alpha: float = 0.05) -> NDArray[np.bool_]:
        """Return which pairs differ, (draws, pairs)."""
        return np.asarray(self.errors.p < self.critical[alpha])

    def equivalent(self, *, adjusted: bool = True) -> NDArray[np.bool_]:
        """Return which pairs are equivalent within the margin, (draws, pairs)."""
        _, p = one_sided(self.errors.effect, self.errors.error, self.errors.df, MARGIN)
        return np.asarray((np.array([holm(row) for row in p]) if adjusted else p) < 0.05)

    def signs(self, alpha: float = 0.05) -> NDArray[np.float64]:
        """Return the significant differences of all methods (draws, first, second): 1, -1, or 0 if not significant."""
        signs = np.zeros((len(self.means), len(METHODS), len(METHODS)))
        i, j = np.triu_indices(len(METHODS), 1)
        signs[:, i, j] = np.sign(self.errors.effect) * self.differ(alpha)
        signs[:, j, i] = -signs[:, i, j]
        return signs

    def may_be_best(self, alpha: float = 0.05) -> NDArray[np.bool_]:
        """Return which methods are not significantly worse than any other, (draws, methods)."""
        return np.asarray(~(self.signs(alpha) < 0).any(axis=2))

    def near_best(self) -> NDArray[np.bool_]:
        """Return which methods are shown to be at most the margin worse than every other, (draws, methods)."""
        pairs = np.stack(np.triu_indices(len(METHODS), 1), axis=1)
        effect, error, df, _ = self.errors
        p = worse_by_margin(pairs, effect, error, df, MARGIN, len(METHODS))
        return np.asarray(np.array([holm(row) for row in p]) < 0.05)


def draw(table: pd.DataFrame, values: NDArray[np.float64], outcome: str) -> dict[str, Drawn]:
    """Return the pairs of each scope that can be tested, from scores of shape (draws, rows).

    Which results make a unit, and which units a block, is what the report's `cells` says of the table.
    """
    rows = np.flatnonzero(table["outcome"] == outcome)
    first = cells(table.assign(f1=values[0]), outcome)
    layout = arrange(first.units)
    adapter_codes, adapters = pd.factorize(table["adapter"].iloc[rows])
    averages = np.stack([100 * values[:, rows[adapter_codes == code]].mean(axis=1) for code in range(len(adapters))], 1)
    by_adapter = first.units.set_index("adapter").loc[adapters]
    axes = (layout.methods, layout.blocks, layout.seeds)
    places = tuple(
        pd.Index(names).get_indexer(by_adapter[key])
        for names, key in zip(axes, ("method", "block", "seed"), strict=True)
    )
    units = np.full((len(values), *layout.values.shape), np.nan)
    units[(slice(None), *places)] = averages
    if np.isnan(layout.values).any():
        by_block = np.swapaxes(units, 1, 2)
        means = np.array([[adjusted_means(block)[0] for block in one] for one in by_block]).swapaxes(1, 2)
    else:
        means = units.mean(axis=3)
    shapes = {THESE: units, LIKE_THESE: means[:, :, None, :]}
    i, j = np.triu_indices(len(METHODS), 1)
    found = {}
    for scope in SCOPES if len(layout.blocks) > 1 else (THESE,):
        compared = compare(first, scope)
        levels = {alpha: compared.critical(alpha) for alpha in LEVELS}
        found[scope] = Drawn(means.mean(axis=2), moderated(shapes[scope][:, i] - shapes[scope][:, j]), levels)
    return found
