"""What the intervals become for other test items of the kind: adapters and items resampled together.

All methods answer the same items, so the items' luck does not shrink with seeds. The difference of two methods is a
mean over adapters (a seed in a block, the same for both methods) crossed with items. Its variance has three parts: of
adapters, of items, and of what is specific to an adapter and an item. They are estimated by analysis of variance
(Brennan, "Generalizability Theory", 2001); blocks are fixed.

The two-way bootstrap draws adapters within blocks and items at once (Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1, 2007). It counts the third part three times, which makes it conservative, and takes n - 1 of n
seeds for the whole variance, which does the contrary. Both are corrected here: the draws of seeds are rescaled (Rao and
Wu 1988), and the surplus of the third part is subtracted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.records import NotTestable, Record
from analysis.robustness.item_scores import Array, Paired, arrange_items, pair_items
from analysis.stats.cells import cells, pairs
from analysis.stats.differences import Comparison, compare

ANALYSIS, BOOTSTRAP, OTHER_ITEMS = "other items", "two-way bootstrap", "difference, other items too"
SOURCES = "variance due to adapters", "variance due to items", "variance due to adapter x item"
DRAWS = 2000


class Components(NamedTuple):
    """The parts of the variance of a mean difference, in squared points.

    Attributes:
        adapters: falls with the number of seeds.
        items: falls with the number of test items.
        both: specific to an adapter and an item; falls with either number.
        between: the variance on these items, of unit means over seeds within blocks; expects adapters + both.
        df: degrees of freedom of `between` (Satterthwaite).
        surplus: what `between` has of blocks with a single seed, which cannot be resampled.
    """

    adapters: float
    items: float
    both: float
    between: float
    df: float
    surplus: float

    @property
    def total(self) -> float:
        """The variance for other adapters and other items."""
        return self.between + self.items


def other_items(
    table: pd.DataFrame, items: pd.DataFrame, *, outcome: str, scope: str, alpha: float = 0.05, draws: int = DRAWS
) -> list[Record]:
    """Compare all pairs of methods for other test items of the kind.

    Returns for each pair the two-way bootstrap's interval, the test of the primary analysis with the items' variance
    added to its error, and the shares of the three sources of variance, which are also given over all pairs.
    """
    try:
        data = arrange_items(table, items, outcome)
        compared = compare(table_cells := cells(table, outcome), scope)
    except NotTestable as reason:
        return [_untestable(outcome, (), reason)]
    primary = {
        (table_cells.methods[i], table_cells.methods[j]): position for position, (i, j) in enumerate(compared.pairs)
    }
    records, found = [], []
    for pair in pairs(data.methods):
        try:
            paired = pair_items(data, *map(data.methods.index, pair))
            parts = components(paired)
        except NotTestable as reason:
            records.append(_untestable(outcome, pair, reason))
            continue
        found.append(parts)
        records.append(_bootstrap_record(outcome, pair, paired, parts, alpha, draws))
        if pair in primary:
            records.append(_primary_record(outcome, pair, compared, primary[pair], parts, paired, alpha))
        records += _shares(outcome, pair, [parts])
    return [*records, *(_shares(outcome, data.methods, found) if len(found) > 1 else ())]


def components(paired: Paired) -> Components:
    """Return the parts of the variance of the mean difference.

    Raises:
        NotTestable: no block has two seeds, there is one item only, or neither adapters nor items vary.
    """
    n = np.bincount(paired.blocks)
    df = n - 1
    if not df.any():
        raise NotTestable("no block has two seeds that both methods have: adapters cannot be resampled")
    n_items = paired.contributions.shape[1]
    if n_items < 2:
        raise NotTestable("there is one item only")
    small = n_items / (n_items - 1)
    block_sums = np.zeros((len(n), len(paired.blocks)), dtype=np.float32)
    block_sums[paired.blocks, np.arange(len(paired.blocks))] = 1
    by_block = block_sums @ paired.contributions
    within = (paired.contributions**2).sum(axis=1, dtype=float)
    squares = _sums(paired, within) - (by_block**2).sum(axis=1, dtype=float) / n
    means = _sums(paired, paired.means) / n
    deviations = _sums(paired, (paired.means - means[paired.blocks]) ** 2)
    share = 1 / (n * len(n) ** 2)  # of a variance between units: weights squared, over the units of a block
    both = small * float(share @ _pooled(squares, df))
    parts = share * _pooled(deviations, df)
    between = float(parts.sum())
    item_sums = paired.weights.astype(np.float32) @ paired.contributions
    items = small * float((item_sums.astype(float) ** 2).sum())
    if between + items <= 1e-16:
        raise NotTestable("the difference of the two methods is the same for all adapters and items")
    if between + max(0.0, items - both) <= 1e-16:
        raise NotTestable("all adapters have the same mean difference, and items differ no more than by chance")
    known = parts[df > 0]
    effective = float(known.sum() ** 2 / (known**2 / df[df > 0]).sum()) if known.any() else float(df.sum())
    return Components(
        adapters=max(0.0, between - both),
        items=max(0.0, items - both),
        both=both,
        between=between,
        df=effective,
        surplus=float(parts[df == 0].sum()),
    )


def _sums(paired: Paired, values: Array) -> Array:
    return np.asarray(np.bincount(paired.blocks, values), dtype=float)


def _pooled(squares: Array, df: NDArray[np.int64]) -> Array:
    """Return the mean square of each block; a block with one seed has that of all."""
    return np.where(df > 0, squares / np.maximum(df, 1), squares.sum() / df.sum())


def two_way_bootstrap(paired: Paired, draws: int = DRAWS) -> Array:
    """Return the mean difference in draws of adapters (within blocks) and items (the same for all pairs).

    The draws are seeded. Seeds are rescaled so that their variance is unbiased.
    """
    unit_draws = _unit_draws(tuple(np.bincount(paired.blocks).tolist()), draws) * paired.weights
    item_draws = _item_draws(paired.contributions.shape[1], draws)
    by_items = np.einsum("di,di->d", unit_draws.astype(np.float32) @ paired.contributions, item_draws)
    return np.asarray(unit_draws @ paired.means + by_items)


def standard_error(parts: Components, draws: Array) -> float:
    """Return the standard error from the draws, without the surplus of the part that they count three times."""
    variance = float(draws.var(ddof=1)) + parts.surplus - 2 * parts.both
    return float(np.sqrt(max(variance, parts.between)))


@lru_cache(maxsize=4)
def _unit_draws(sizes: tuple[int, ...], draws: int) -> Array:
    """Return rescaled counts of each unit (columns, by block) in each draw (rows)."""
    rng = np.random.default_rng(2007)
    parts = []
    for n in sizes:
        counts = rng.multinomial(n, np.full(n, 1 / n), size=draws)
        parts.append(1 + (counts - 1) * (np.sqrt(n / (n - 1)) if n > 1 else 0.0))
    return np.concatenate(parts, axis=1)


@lru_cache(maxsize=2)
def _item_draws(items: int, draws: int) -> NDArray[np.float32]:
    """Return the count of each item (columns) in each draw (rows)."""
    rng = np.random.default_rng(1979)
    counts = (np.bincount(rng.integers(items, size=items), minlength=items) for _ in range(draws))
    return np.stack([row.astype(np.float32) for row in counts])


def _bootstrap_record(
    outcome: str, pair: tuple[str, str], paired: Paired, parts: Components, alpha: float, draws: int
) -> Record:
    error = standard_error(parts, two_way_bootstrap(paired, draws))
    if error <= 1e-8:
        why = "all adapters have the same mean difference, and the draws vary no more than by chance"
        return _untestable(outcome, pair, NotTestable(why))
    effect = round(float(paired.weights @ paired.means), 10) + 0.0
    df = _satterthwaite(parts.between, parts.df, parts.items, paired)
    half = float(stats.t.isf(alpha / 2, df)) * error
    note = (
        "points, adapters (seeds within blocks) and items resampled together; interval for this pair alone, from the "
        "standard error of the draws and t; n test items"
    )
    return Record(
        outcome=outcome,
        analysis=ANALYSIS,
        test=BOOTSTRAP,
        groups=pair,
        statistic=effect / error,
        df=(df,),
        effect=effect,
        interval=(effect - half, effect + half),
        n=paired.contributions.shape[1],
        note=note,
    )


def _primary_record(
    outcome: str,
    pair: tuple[str, str],
    compared: Comparison,
    position: int,
    parts: Components,
    paired: Paired,
    alpha: float,
) -> Record:
    """Return the primary test of a pair with the items' variance added to the squared error."""
    effect, error, df, p = (float(values[position]) for values in compared.errors)
    if not np.isfinite(p):
        return _untestable(outcome, pair, NotTestable("the primary analysis cannot test this pair"), OTHER_ITEMS)
    effect = round(effect, 10) + 0.0  # equal means differ by rounding errors, which would be printed
    df = _satterthwaite(error**2, df, parts.items, paired)
    total = float(np.sqrt(error**2 + parts.items))
    p = float(2 * stats.t.sf(abs(effect) / total, df))
    half = float(stats.t.isf(compared.critical(alpha) / 2, df)) * total
    return Record(
        outcome=outcome,
        analysis=ANALYSIS,
        test=OTHER_ITEMS,
        groups=pair,
        statistic=effect / total,
        df=(df,),
        p=p,
        p_adjusted=compared.adjusted(p),
        correction="max t",
        effect=effect,
        interval=(effect - half, effect + half),
        n=paired.contributions.shape[1],
        note="the primary analysis with the variance due to items added to its squared error; interval for all pairs "
        "at once; n test items",
    )


def _satterthwaite(first: float, df: float, items: float, paired: Paired) -> float:
    """Return the degrees of freedom of the sum of a variance with `df` and that of the items."""
    n_items = paired.contributions.shape[1]
    return float((first + items) ** 2 / (first**2 / df + items**2 / (n_items - 1)))


def _shares(outcome: str, groups: tuple[str, ...], found: list[Components]) -> list[Record]:
    """Return the share of each source in the variance, in percent, of one pair or summed over pairs."""
    sums = [sum(getattr(parts, name) for parts in found) for name in ("adapters", "items", "both")]
    note = "percent of the variance of the difference" + (", all pairs together" if len(found) > 1 else "")
    return [
        Record(outcome=outcome, analysis=ANALYSIS, test=test, groups=groups, effect=100 * part / sum(sums), note=note)
        for test, part in zip(SOURCES, sums, strict=True)
    ]


def _untestable(outcome: str, groups: tuple[str, ...], reason: NotTestable, test: str = BOOTSTRAP) -> Record:
    return Record(outcome=outcome, analysis=ANALYSIS, test=test, groups=groups, note=f"no test: {reason}")
