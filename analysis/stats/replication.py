"""The test that matches the paper's figures: one-way ANOVA over all runs, with assumption checks and alternatives.

It ignores that language and ratio shift all methods together, so its "no difference" carries little information. It
serves for comparison with the paper; draw conclusions from the blocked analysis.
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

from analysis.naming import names_of
from analysis.records import NotTestable, Record, Result, attempt
from analysis.stats.cells import Samples, pairs, samples
from analysis.stats.multiplicity import holm

_MARK = "as in the paper: all runs as independent replicates, language and ratio ignored"


def replication(table: pd.DataFrame, *, outcome: str, alpha: float = 0.05) -> list[Record]:
    """Return one-way ANOVA and Tukey's HSD over all runs, checks of their assumptions, and the alternatives: Welch,
    Games-Howell, Kruskal-Wallis and Dunn.
    """
    groups = samples(table, outcome)
    names = tuple(groups)
    mark = _MARK
    if len(table) and "en" in set(table["outcome"]):
        mark += f"; shared {names_of(table).source} results count once"
    omnibus: list[tuple[str, Callable[[Samples], Result], str]] = [
        ("one-way ANOVA", anova, mark),
        ("Brown-Forsythe", brown_forsythe, "equality of variances: Levene's test on deviations from the median"),
        ("Bartlett", bartlett, "equality of variances, assuming normality"),
        ("Shapiro-Wilk", shapiro, "normality of the residuals"),
        ("Welch ANOVA", welch, "as one-way ANOVA, without equal variances"),
        ("Kruskal-Wallis", kruskal, "as one-way ANOVA, on ranks"),
    ]
    records = [
        attempt(partial(test, groups), outcome, "replication", name, names, note) for name, test, note in omnibus
    ]
    records += _pairwise(groups, outcome, "Tukey HSD", "tukey", partial(tukey_hsd, equal=True, alpha=alpha))
    records += _pairwise(groups, outcome, "Games-Howell", "games-howell", partial(tukey_hsd, equal=False, alpha=alpha))
    return records + _pairwise(groups, outcome, "Dunn", "holm", dunn)


def anova(groups: Samples) -> Result:
    """Test by one-way analysis of variance."""
    values = _values(groups)
    f, p = stats.f_oneway(*values)
    n = sum(map(len, values))
    return Result(float(f), (len(values) - 1, n - len(values)), float(p), n=n)


def welch(groups: Samples) -> Result:
    """Test by Welch's analysis of variance, for unequal variances."""
    values = _values(groups, min_size=2, must_vary=True)
    result = anova_oneway(values, use_var="unequal", welch_correction=True)
    return Result(float(result.statistic), tuple(map(float, result.df)), float(result.pvalue), n=sum(map(len, values)))


def brown_forsythe(groups: Samples) -> Result:
    """Test for equal variances on absolute deviations from the median (Brown-Forsythe)."""
    values = _values(groups, min_size=2)
    deviations = [np.abs(group - np.median(group)) for group in values]
    if all(np.ptp(d) <= 1e-12 * max(1.0, d.max()) for d in deviations):
        # Also with two runs per method: their distances are equal, and F would be infinite.
        raise NotTestable("the distances from each method's median do not vary")
    f, p = stats.levene(*values, center="median")
    n = sum(map(len, values))
    return Result(float(f), (len(values) - 1, n - len(values)), float(p), n=n)


def bartlett(groups: Samples) -> Result:
    """Test for equal variances of normal samples (Bartlett)."""
    values = _values(groups, min_size=2, must_vary=True)
    statistic, p = stats.bartlett(*values)
    return Result(float(statistic), (len(values) - 1,), float(p), n=sum(map(len, values)))


def shapiro(groups: Samples) -> Result:
    """Test for normality of the residuals from the group means (Shapiro-Wilk)."""
    residuals = np.concatenate([group - group.mean() for group in _values(groups)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns that p is approximate for more than 5,000 values
        w, p = stats.shapiro(residuals)
    return Result(float(w), None, float(p), n=len(residuals))


def kruskal(groups: Samples) -> Result:
    """Test by ranks (Kruskal-Wallis)."""
    values = _values(groups)
    h, p = stats.kruskal(*values)
    return Result(float(h), (len(values) - 1,), float(p), n=sum(map(len, values)))


Pairs = dict[tuple[str, str], tuple[Result, float]]
"""The result of each pair, with its p adjusted for the number of pairs."""


def tukey_hsd(groups: Samples, *, equal: bool = True, alpha: float = 0.05) -> Pairs:
    """Compare all pairs by Tukey's HSD (Tukey-Kramer) or, without equal variances, by Games-Howell."""
    values = _values(groups, min_size=2, must_vary=not equal)  # scipy rejects samples of one value
    names = list(groups)
    result = stats.tukey_hsd(*values, equal_var=equal)
    # Games-Howell intervals need a slow quantile for each pair; Tukey's need only one.
    interval = result.confidence_interval(1 - alpha) if equal else None
    results: Pairs = {}
    for a, b in pairs(names):
        i, j = names.index(a), names.index(b)
        bounds = (float(interval.low[i, j]), float(interval.high[i, j])) if interval else None
        n = len(values[i]) + len(values[j])
        results[a, b] = Result(effect=float(result.statistic[i, j]), interval=bounds, n=n), float(result.pvalue[i, j])
    return results


def dunn(groups: Samples) -> Pairs:
    """Compare all pairs by Dunn's test on the Kruskal-Wallis ranks, with Holm's adjustment."""
    values = _values(groups)
    names = list(groups)
    frame = pd.DataFrame({"value": np.concatenate(values), "group": np.repeat(names, [len(v) for v in values])})
    p_values = scikit_posthocs.posthoc_dunn(frame, val_col="value", group_col="group")
    sizes = dict(zip(names, map(len, values), strict=True))
    results = {(a, b): Result(p=float(p_values.at[a, b]), n=sizes[a] + sizes[b]) for a, b in pairs(names)}
    adjusted = holm([result.p or 0.0 for result in results.values()])
    return {pair: (result, float(p)) for (pair, result), p in zip(results.items(), adjusted, strict=True)}


def _pairwise(
    groups: Samples, outcome: str, test: str, correction: str, compare: Callable[[Samples], Pairs]
) -> list[Record]:
    try:
        results = compare(groups)
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
        for pair, (result, adjusted) in results.items()
    ]


def _values(groups: Samples, *, min_size: int = 1, must_vary: bool = False) -> list[NDArray[np.float64]]:
    """Return the groups as arrays of floats (scipy's `bartlett` raises on integers).

    Args:
        min_size: the minimum number of values per group.
        must_vary: whether every group must vary.

    Raises:
        NotTestable: the groups cannot be tested.
    """
    values = [np.asarray(group, dtype=float) for group in groups.values()]
    if len(values) < 2:
        raise NotTestable("there is one method only" if values else "there are no runs")
    for name, group in zip(groups, values, strict=True):
        if len(group) < min_size:
            raise NotTestable(f"{name} has one run only")
        if must_vary and np.ptp(group) == 0:
            raise NotTestable(f"the runs of {name} do not vary")
    if sum(map(len, values)) <= len(values):
        raise NotTestable("no method has two runs")
    if all(np.ptp(group) == 0 for group in values):
        raise NotTestable("nothing varies within the methods")
    return values
