"""Power of a design: minimum detectable differences, and the number of seeds needed to detect the margin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.blocked import fit_cells
from analysis.stats.cells import Cells, cells, points
from analysis.stats.differences import THESE, compare
from analysis.stats.distributions import noncentrality, range_quantile, t_power
from analysis.stats.linear import Additive
from analysis.stats.paired import collect

MOST_SEEDS = 100_000
BY_SIZE, PRESENT, NEEDED = (
    f"minimum detectable difference, {which}" for which in ("by size", "this design", "size for the margin")
)
_SIZES = (*range(2, 7), 8, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
DETECTABLE = "minimum detectable difference, pair, blocked"


def power(
    table: pd.DataFrame, *, outcome: str, margin: float = 1.0, alpha: float = 0.05, wanted: float = 0.8
) -> list[Record]:
    """Return the power of the design.

    The records hold the SD over seeds, the minimum detectable differences of one cell and of the primary analysis at
    power `wanted`, the power at `margin` points, and the seeds needed to detect the margin.
    """
    table_cells = cells(table, outcome)
    names = table_cells.methods
    records = [
        attempt(lambda: _spread(table_cells), outcome, "power", "SD over seeds", names, "points, pooled over cells"),
        *_one_cell(table_cells, outcome, margin, alpha, wanted),
    ]
    try:
        fit = fit_cells(table_cells)
    except NotTestable as reason:
        note = f"no test: {reason}"
        return [*records, Record(outcome=outcome, analysis="power", test=DETECTABLE, groups=names, note=note)]
    return [*records, *_blocked(fit, table_cells, outcome, margin, alpha, wanted)]


def detectable_by_size(
    table: pd.DataFrame, *, outcome: str, scope: str, margin: float, alpha: float = 0.05, wanted: float = 0.8
) -> list[Record]:
    """Return the minimum detectable difference of a pair in the primary analysis by the size of the design.

    The size (n) is the number of seeds for the scope "these" and of blocks for "like-these". The pair has the median
    error, which shrinks with the root of the size, as its degrees of freedom grow; the critical p of a pair is that of
    the present design. Sizes end with the first that detects `margin` points; a record names the smallest one. Empty if
    the primary analysis cannot be made.
    """
    table_cells = cells(table, outcome)
    try:
        compared = compare(table_cells, scope)
    except NotTestable:
        return []
    tested = np.isfinite(compared.errors.p)
    error, df = (float(np.median(values[tested])) for values in (compared.errors.error, compared.errors.df))
    critical = compared.critical(alpha)
    present = table_cells.units["seed"].nunique() if scope == THESE else len(table_cells.means)

    def detectable(size: int) -> float:
        own_df = df * (size - 1) / (present - 1)
        scaled = error * float(np.sqrt(present / size))
        return noncentrality(own_df, float(stats.t.isf(critical / 2, own_df)), wanted) * scaled

    unit = "seeds" if scope == THESE else "blocks"
    note = f"points, for a pair with the median error and n {unit}, power {wanted:.0%}"
    base = Record(outcome=outcome, analysis="power", test=PRESENT, groups=table_cells.methods, note=note)
    records = [replace(base, effect=detectable(present), n=present)]
    for size in sorted({*_SIZES, present}):
        records.append(replace(base, test=BY_SIZE, effect=detectable(size), n=size))
        if size >= present and (records[-1].effect or 0.0) <= margin:
            break
    note = f"n {unit} to detect a pair that differs by {points(margin)}, power {wanted:.0%}"
    try:
        needed = _smallest_sufficient(lambda size: float(detectable(size) <= margin), 1.0)
    except NotTestable:
        return records
    return [*records, replace(base, test=NEEDED, effect=margin, n=needed, note=note)]


def item_power(items: pd.DataFrame, *, outcome: str, alpha: float = 0.05, wanted: float = 0.8) -> list[Record]:
    """Return the minimum detectable difference of McNemar's test on the items, at the mean discordance of all pairs."""
    answers = collect(items, outcome)
    names = answers.methods
    n = len(np.unique(answers.clusters))

    def detectable() -> Result:
        if len(names) < 2:
            raise NotTestable("fewer than two methods have predictions")
        disagreements = [np.abs(x - y) for x, y in itertools.combinations(answers.scores.T, 2)]
        discordances = [float(d[~np.isnan(d)].mean()) for d in disagreements if not np.isnan(d).all()]
        discordance = float(np.mean(discordances)) if discordances else 0.0
        if discordance == 0:
            raise NotTestable("the methods never disagree")
        return Result(
            discordance,
            effect=100 * detectable_item_difference(items=n, discordance=discordance, wanted=wanted, alpha=alpha),
            n=n,
        )

    note = f"points on n items, power {wanted:.0%}; the statistic is the share of answers on which a pair disagrees"
    return [attempt(detectable, outcome, "power", "minimum detectable difference, items", names, note)]


def f_power(nc: float, df: tuple[float, float], alpha: float = 0.05) -> float:
    """Return the power of an F test.

    Args:
        nc: the noncentrality: the sum of squared deviations of the group means, times the number of values per group,
            divided by the error variance.
        df: degrees of freedom of the groups and of the error.
    """
    return float(stats.ncf.sf(stats.f.ppf(1 - alpha, *df), *df, nc))


def two_sample_power(*, difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the t test for two independent samples of n values each."""
    return t_power(difference / (sd * np.sqrt(2 / n)), 2 * n - 2, stats.t.ppf(1 - alpha / 2, 2 * n - 2))


def seeds_needed(*, difference: float, sd: float, wanted: float = 0.8, alpha: float = 0.05) -> int:
    """Return the number of seeds that each of two methods needs to detect a difference in one cell.

    Raises:
        NotTestable: more than 100,000 seeds.
    """
    return _smallest_sufficient(lambda n: two_sample_power(difference=difference, sd=sd, n=n, alpha=alpha), wanted)


def detectable_difference(*, sd: float, n: int, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Return the minimum detectable difference of the t test for two samples of n values each."""
    return detectable_from_error(sd * float(np.sqrt(2 / n)), 2 * n - 2, wanted=wanted, alpha=alpha)


def detectable_from_error(error: float, df: float, *, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Return the minimum detectable difference of a t test with the given standard error and degrees of freedom."""
    return noncentrality(df, float(stats.t.ppf(1 - alpha / 2, df)), wanted) * error


def detectable_item_difference(*, items: int, discordance: float, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Return the minimum detectable difference in accuracy of McNemar's test on the same items.

    Args:
        discordance: the share of items on which exactly one of the two methods is right.

    Returns:
        the difference as a share, 0 to 1 (Connor 1987, solved for the difference).
    """
    z, z_wanted = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(wanted)

    def shortfall(d: float) -> float:
        return float(z * np.sqrt(discordance) + z_wanted * np.sqrt(max(0.0, discordance - d * d)) - d * np.sqrt(items))

    top = float(np.sqrt(discordance))
    return float(optimize.brentq(shortfall, 0, top)) if shortfall(top) < 0 else discordance


def _spread(table_cells: Cells) -> Result:
    variance, df = table_cells.within()
    if not df:
        raise NotTestable("no cell has two seeds")
    low, high = (float(np.sqrt(variance * df / stats.chi2.ppf(q, df))) for q in (0.975, 0.025))
    return Result(df=(df,), effect=float(np.sqrt(variance)), interval=(low, high), n=len(table_cells.runs))


def _one_cell(table_cells: Cells, outcome: str, margin: float, alpha: float, wanted: float) -> Iterator[Record]:
    """Yield the power of comparing two methods in one cell of the design, over seeds alone."""
    names = table_cells.methods

    def sd() -> float:
        deviation = _spread(table_cells).effect or 0.0
        if deviation == 0:
            raise NotTestable("the seeds do not differ")
        return deviation

    seeds = round(table_cells.seeds())

    def detectable() -> Result:
        deviation = sd()
        if seeds < 2:  # a few cells have several seeds, but a t test needs two in each
            raise NotTestable("most cells have one seed")
        return Result(effect=detectable_difference(sd=deviation, n=seeds, wanted=wanted, alpha=alpha), n=seeds)

    def needed() -> Result:
        return Result(effect=margin, n=seeds_needed(difference=margin, sd=sd(), wanted=wanted, alpha=alpha))

    note = f"points, for two methods in one cell, n seeds each, power {wanted:.0%}"
    yield attempt(detectable, outcome, "power", "minimum detectable difference, one cell", names, note)
    note = f"n seeds for each of two methods to detect {points(margin)} in one cell, power {wanted:.0%}"
    yield attempt(needed, outcome, "power", "seeds needed, one cell", names, note)


def _blocked(
    fit: Additive, table_cells: Cells, outcome: str, margin: float, alpha: float, wanted: float
) -> Iterator[Record]:
    names, k = fit.levels, len(fit.levels)
    design = _Design(fit, table_cells, alpha)
    blocks = fit.n / k
    error = float(np.sqrt(2 * fit.variance / blocks))
    nc = noncentrality(fit.df, design.critical(fit.df), wanted)
    n = len(table_cells.means)
    note = f"points, for Tukey's test of a pair over {n} blocks, power {wanted:.0%}"
    yield Record(outcome=outcome, analysis="power", test=DETECTABLE, groups=names, effect=nc * error, n=n, note=note)
    spread = margin**2 * (k - 1) / k
    f = f_power(blocks * spread / fit.variance, (k - 1, fit.df), alpha)
    note = f"power of F, method against method x block, if one method is {points(margin)} below all others"
    yield Record(
        outcome=outcome,
        analysis="power",
        test="power at the margin, F",
        groups=names,
        statistic=f,
        effect=margin,
        n=n,
        note=note,
    )
    yield from _seeds(design, outcome, margin, wanted)


def _seeds(design: _Design, outcome: str, margin: float, wanted: float) -> Iterator[Record]:
    """Yield the number of seeds that detects a pair `margin` apart."""
    test, names = "seeds needed, blocked", design.fit.levels
    if not design.seed_variance_known:
        note = "no test: with one seed a cell the variance between seeds is unknown"
        yield Record(outcome=outcome, analysis="power", test=test, groups=names, effect=margin, note=note)
        return
    note = (
        f"n seeds a cell ({design.description}) to detect a difference of {points(margin)}, Tukey, power {wanted:.0%}"
    )
    needed: int | None = None
    try:
        one_is_enough = not design.by_seed and design.power(margin, 1) >= wanted
        needed = 1 if one_is_enough else _smallest_sufficient(lambda seeds: design.power(margin, seeds), wanted)
    except NotTestable:
        note = f"no number of seeds detects {points(margin)} with power {wanted:.0%}: more blocks are needed"
    yield Record(outcome=outcome, analysis="power", test=test, groups=names, effect=margin, n=needed, note=note)


class _Design:
    """The primary analysis with a different number of seeds.

    More seeds reduce the share of the error that comes from seeds, and leave the method x block interaction unchanged.
    If the blocks are seeds, more seeds are more blocks.
    """

    def __init__(self, fit: Additive, table_cells: Cells, alpha: float) -> None:
        self.fit, self.alpha, self.k = fit, alpha, len(fit.levels)
        self.blocks = fit.n / self.k
        self.by_seed = table_cells.unit == "seed"
        variance, df = table_cells.within()
        self.seed_variance = 0.0 if self.by_seed or not df else min(variance, fit.variance * table_cells.seeds())
        self.interaction_variance = fit.variance - (0.0 if self.by_seed else self.seed_variance / table_cells.seeds())
        self.seed_variance_known = self.by_seed or df > 0
        self.description = "seeds are the blocks" if self.by_seed else "the same blocks"

    def critical(self, df: float) -> float:
        return range_quantile(1 - self.alpha, self.k, df) / float(np.sqrt(2))

    def power(self, difference: float, seeds: int) -> float:
        """Return the power of Tukey's test for one pair."""
        if self.by_seed:
            variance, n, df = self.fit.variance, float(seeds), (self.k - 1) * (seeds - 1)
        else:
            variance, n, df = self.interaction_variance + self.seed_variance / seeds, self.blocks, self.fit.df
        if variance <= 0:
            return 1.0
        return t_power(difference / float(np.sqrt(2 * variance / n)), df, self.critical(df))


def _smallest_sufficient(power_of: Callable[[int], float], wanted: float) -> int:
    """Return the smallest number (at least 2) with sufficient power; power must increase with the number.

    Raises:
        NotTestable: the number exceeds `MOST_SEEDS`.
    """
    high = next((n for n in (2**i for i in itertools.count(1)) if n > MOST_SEEDS or power_of(n) >= wanted), MOST_SEEDS)
    if high > MOST_SEEDS:
        raise NotTestable("more than 100,000 seeds")
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= wanted else (middle + 1, high)
    return high
