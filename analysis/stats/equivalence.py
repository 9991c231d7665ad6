"""Tests equivalence within a margin: two one-sided tests (TOST) for each pair, Wellek's test for all methods at once.

A difference that is not significant does not show equivalence; these tests do.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.oneway import equivalence_oneway_generic
from statsmodels.stats.weightstats import ttost_paired

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.blocked import fit_cells
from analysis.stats.cells import Cells, cells, pairs, points
from analysis.stats.moderated import Array
from analysis.stats.multiplicity import holm_records

PAIR_TEST, ALL_TEST = "TOST", "Wellek"


def equivalence(table: pd.DataFrame, *, outcome: str, margin: float = 1.0, alpha: float = 0.05) -> list[Record]:
    """Test whether methods differ by less than `margin` (F1 points), on differences of cell means within blocks.

    Each pair is tested on its own differences, so equal variances are not assumed. p is adjusted by Holm over the
    pairs; the interval is the 1 - 2 alpha interval that TOST compares with the margin.
    """
    table_cells = cells(table, outcome)
    names = table_cells.methods
    unit = f"differences within blocks ({table_cells.unit})"
    note = f"equivalence within {points(margin)}; {unit}; {1 - 2 * alpha:.0%} CI"
    records = []
    for a, b in pairs(names):
        both = table_cells.means[[a, b]].dropna()
        records.append(
            attempt(partial(tost, both[a], both[b], margin, alpha), outcome, "equivalence", PAIR_TEST, (a, b), note)
        )
    records = holm_records(records)
    if len(names) < 2:
        reason = "no test: " + ("there is one method only" if names else "there are no runs")
        return [Record(outcome=outcome, analysis="equivalence", test=PAIR_TEST, groups=names, note=reason)]
    return [
        *records,
        attempt(lambda: _omnibus(table_cells, margin), outcome, "equivalence", ALL_TEST, names, _wellek_note(margin)),
    ]


def tost_record(
    outcome: str,
    analysis: str,
    pair: tuple[str, str],
    effect: float,
    error: float,
    df: float,
    n: int,
    margin: float,
    alpha: float,
    where: str,
) -> Record:
    """Test by two one-sided tests that a difference lies within +- margin, on the error of `moderated`."""
    t, p = one_sided(effect, error, df, margin)
    half = float(stats.t.isf(alpha, df)) * error
    return Record(
        outcome=outcome,
        analysis=analysis,
        test=PAIR_TEST,
        groups=pair,
        statistic=float(t),
        df=(df,),
        p=float(p),
        effect=effect,
        interval=(effect - half, effect + half),
        n=n,
        note=f"equivalence within {points(margin)} {where}; {1 - 2 * alpha:.0%} CI",
    )


def one_sided(effect: ArrayLike, error: ArrayLike, df: ArrayLike, margin: float) -> tuple[Array, Array]:
    """Return t and p of the two one-sided tests that a difference lies within +- margin, the side with the larger p."""
    t = (margin - np.abs(np.asarray(effect))) / np.asarray(error)
    return t, np.asarray(stats.t.sf(t, df))


def tost(first: ArrayLike, second: ArrayLike, margin: float, alpha: float = 0.05) -> Result:
    """Test by two one-sided paired t tests that the mean difference lies within +- margin (Schuirmann 1987).

    The statistic is that of the side with the larger p.

    Raises:
        NotTestable: fewer than two pairs, or the differences do not vary.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    d = x - y
    if len(d) < 2:
        raise NotTestable(f"the two methods have {len(d) or 'no'} block{'s' * (len(d) == 0)} in common, two are needed")
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        raise NotTestable("the difference is the same in every block")
    p, (t_low, p_low, df), (t_high, p_high, _) = ttost_paired(x, y, -margin, margin)
    low, high = stats.ttest_1samp(d, 0).confidence_interval(1 - 2 * alpha)
    t = t_low if p_low > p_high else t_high
    return Result(float(t), (float(df),), float(p), float(d.mean()), (float(low), float(high)), len(d))


def wellek(f: float, df: tuple[float, float], per_group: float, epsilon: float) -> Result:
    """Test by Wellek's F test that all groups are equivalent; a small F shows equivalence.

    Args:
        f: the F statistic of the analysis of variance.
        per_group: the (mean) number of values per group.
        epsilon: the margin: the root of the sum of squared deviations of the group means, in units of the error
            standard deviation (Wellek 2010, section 7.2).

    Returns:
        p; the effect is the estimate of the quantity that epsilon bounds.
    """
    groups = int(df[0]) + 1
    result = equivalence_oneway_generic(f, groups, np.full(groups, per_group), epsilon, df, margin_type="wellek")
    return Result(f, df, float(result.pvalue), float(np.sqrt(f * df[0] / per_group)), n=round(per_group * groups))


def _omnibus(table_cells: Cells, margin: float) -> Result:
    fit = fit_cells(table_cells)
    per_group = fit.n / len(fit.levels)
    epsilon = margin / float(np.sqrt(2 * fit.variance))
    f, (df1, df2) = float(fit.test.statistic or 0), fit.test.df or (0, 0)
    return wellek(f, (df1, df2), per_group, epsilon)


def _wellek_note(margin: float) -> str:
    return (
        f"joint equivalence of all methods, from F of method against method x block; epsilon is {margin:g} "
        "/ (SD sqrt 2), "
        f"that of two methods {points(margin)} apart with the others midway; effect in units of the error SD"
    )
