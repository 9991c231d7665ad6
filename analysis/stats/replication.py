"""The test that the paper's figures fit: one-way analysis of variance over all runs, with its assumptions and rivals.

It ignores that language and ratio move every method together, so its "no difference" carries little information; it is
there to be compared with the paper, and the blocked analysis is there to be believed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import scikit_posthocs
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import Samples, pairs, samples
from analysis.stats.multiplicity import holm

_MARK = "the paper's test: every run counts alike, language and ratio are ignored; shared English results count once"


def replication(table: pd.DataFrame, *, outcome: str, alpha: float = 0.05) -> list[Record]:
    """Return one-way ANOVA and Tukey's HSD over all runs, checks of their assumptions, and Welch, Games-Howell,
    Kruskal-Wallis and Dunn beside them.
    """
    groups = samples(table, outcome)
    names = tuple(groups)
    omnibus: list[tuple[str, Callable[[Samples], Result], str]] = [
        ("one-way ANOVA", anova, _MARK),
        ("Brown-Forsythe", brown_forsythe, "are the variances equal? Levene's test around medians"),
        ("Bartlett", bartlett, "are the variances equal, if the values are normal?"),
        ("Shapiro-Wilk", shapiro, "are the residuals normal?"),
        ("Welch ANOVA", welch, "as one-way ANOVA, without equal variances"),
        ("Kruskal-Wallis", kruskal, "as one-way ANOVA, on ranks"),
    ]
    found = [attempt(partial(test, groups), outcome, "replication", name, names, note) for name, test, note in omnibus]
    found += _pairwise(groups, outcome, "Tukey HSD", "tukey", partial(tukey_hsd, equal=True, alpha=alpha))
    found += _pairwise(groups, outcome, "Games-Howell", "games-howell", partial(tukey_hsd, equal=False, alpha=alpha))
    return found + _pairwise(groups, outcome, "Dunn", "holm", dunn)


def anova(groups: Samples) -> Result:
    """One-way analysis of variance."""
    values = _values(groups)
    f, p = stats.f_oneway(*values)
    n = sum(map(len, values))
    return Result(float(f), (len(values) - 1, n - len(values)), float(p), n=n)


def welch(groups: Samples) -> Result:
    """Welch's analysis of variance, for unequal variances."""
    values = _values(groups, each=2, vary=True)
    found = anova_oneway(values, use_var="unequal", welch_correction=True)
    return Result(float(found.statistic), tuple(map(float, found.df)), float(found.pvalue), n=sum(map(len, values)))


def brown_forsythe(groups: Samples) -> Result:
    """Test of equal variances on absolute deviations from the median."""
    values = _values(groups, each=2)
    away = [np.abs(group - np.median(group)) for group in values]
    if all(np.ptp(distances) <= 1e-12 * max(1.0, distances.max()) for distances in away):
        # So are two runs a method: their distances are equal, and F would be infinite.
        raise NotTestable("the distances from each method's median do not vary")
    f, p = stats.levene(*values, center="median")
    n = sum(map(len, values))
    return Result(float(f), (len(values) - 1, n - len(values)), float(p), n=n)


def bartlett(groups: Samples) -> Result:
    """Test of equal variances of normal samples."""
    values = _values(groups, each=2, vary=True)
    statistic, p = stats.bartlett(*values)
    return Result(float(statistic), (len(values) - 1,), float(p), n=sum(map(len, values)))


def shapiro(groups: Samples) -> Result:
    """Shapiro and Wilk's test of normality on the residuals from the group means."""
    residuals = np.concatenate([group - group.mean() for group in _values(groups)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beyond 5,000 values p is approximate
        w, p = stats.shapiro(residuals)
    return Result(float(w), None, float(p), n=len(residuals))


def kruskal(groups: Samples) -> Result:
    """Kruskal and Wallis's rank test."""
    values = _values(groups)
    h, p = stats.kruskal(*values)
    return Result(float(h), (len(values) - 1,), float(p), n=sum(map(len, values)))


Pairs = dict[tuple[str, str], tuple[Result, float]]
"""The result of each pair, and its p adjusted for the number of pairs."""


def tukey_hsd(groups: Samples, *, equal: bool = True, alpha: float = 0.05) -> Pairs:
    """Compare all pairs by Tukey's HSD (Tukey-Kramer), or by Games and Howell's test without equal variances."""
    values = _values(groups, each=2, vary=not equal)  # scipy refuses a sample of one
    names = list(groups)
    found = stats.tukey_hsd(*values, equal_var=equal)
    # Games and Howell's intervals need a quantile for each pair, a second for every few pairs; Tukey's need one.
    interval = found.confidence_interval(1 - alpha) if equal else None
    results: Pairs = {}
    for a, b in pairs(names):
        i, j = names.index(a), names.index(b)
        limits = (float(interval.low[i, j]), float(interval.high[i, j])) if interval else None
        n = len(values[i]) + len(values[j])
        results[a, b] = Result(effect=float(found.statistic[i, j]), interval=limits, n=n), float(found.pvalue[i, j])
    return results


def dunn(groups: Samples) -> Pairs:
    """Compare all pairs by Dunn's test on the ranks of Kruskal and Wallis; adjusted by Holm."""
    values = _values(groups)
    names = list(groups)
    frame = pd.DataFrame({"value": np.concatenate(values), "group": np.repeat(names, [len(v) for v in values])})
    found = scikit_posthocs.posthoc_dunn(frame, val_col="value", group_col="group")
    sizes = dict(zip(names, map(len, values), strict=True))
    results = {(a, b): Result(p=float(found.at[a, b]), n=sizes[a] + sizes[b]) for a, b in pairs(names)}
    adjusted = holm([result.p or 0.0 for result in results.values()])
    return {pair: (result, float(p)) for (pair, result), p in zip(results.items(), adjusted, strict=True)}


def _pairwise(
    groups: Samples, outcome: str, test: str, correction: str, compare: Callable[[Samples], Pairs]
) -> list[Record]:
    try:
        found = compare(groups)
    except NotTestable as reason:
        note = f"no test: {reason}"
        return [Record(outcome=outcome, analysis="replication", test=test, groups=tuple(groups), note=note)]
    return [
        Record(
            outcome=outcome,
            analysis="replication",
            test=test,
            groups=pair,
            p_adjusted=adjusted,
            correction=correction,
            **result._asdict(),
        )
        for pair, (result, adjusted) in found.items()
    ]


def _values(groups: Samples, *, each: int = 1, vary: bool = False) -> list[NDArray[np.float64]]:
    """Return the groups as arrays of floats (scipy's `bartlett` raises on integers), if they can be tested."""
    values = [np.asarray(group, dtype=float) for group in groups.values()]
    if len(values) < 2:
        raise NotTestable("there is one method only" if values else "there are no runs")
    for name, group in zip(groups, values, strict=True):
        if len(group) < each:
            raise NotTestable(f"{name} has one run only")
        if vary and np.ptp(group) == 0:
            raise NotTestable(f"the runs of {name} do not vary")
    if sum(map(len, values)) <= len(values):
        raise NotTestable("no method has two runs")
    if all(np.ptp(group) == 0 for group in values):
        raise NotTestable("nothing varies within the methods")
    return values
