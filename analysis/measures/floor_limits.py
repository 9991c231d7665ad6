"""The upper end of the interval of a floor over test items, for any headline metric.

The interval is Wilson's at the number of test items, which fits shares of right answers and is conservative for F1 in
QA. Other scores, such as macro-F1 and chrF, have the effective number of items in its place (Korn & Graubard 1998): the
number at which Wilson's interval of the run's own score on these items has the width of the bootstrap interval that
the run logged.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from analysis.naming import DEFAULT_HEADLINE


def upper_limits(frame: pd.DataFrame, outcome: str, items: pd.Series[float], *, alpha: float) -> pd.Series[float]:
    """Return the upper limit of each row's `floor`, both in points; missing where `items`, the test items, are.

    Args:
        frame: rows of an outcome, with `floor` and `value` (the headline metric) in points.
    """
    share = (frame["floor"] / 100).clip(0, 1)
    n = effective_items(frame, outcome, items)
    _, upper = proportion_confint((share * n).to_numpy(), n.to_numpy(), alpha=alpha, method="wilson")
    return pd.Series(100 * np.asarray(upper), frame.index)


def effective_items(frame: pd.DataFrame, outcome: str, items: pd.Series[float]) -> pd.Series[float]:
    """Return the effective number of items of each row: `items` for F1, and where a run has logged no interval."""
    n = items.astype(float).copy()
    if "headline" not in frame:
        return n
    for metric, rows in frame.groupby("headline"):
        low, high = (f"test/{outcome}/{metric}_{end}" for end in ("low", "high"))
        if metric == DEFAULT_HEADLINE or not {low, high} <= {*frame}:
            continue
        width = (rows[high] - rows[low]).astype(float)
        score, known = (rows["value"] / 100).clip(0, 1), n[rows.index]
        below, above = proportion_confint((score * known).to_numpy(), known.to_numpy(), method="wilson")
        ratio = (np.asarray(above) - np.asarray(below)) / width.where(width > 0)
        n[rows.index] = (known * ratio**2).fillna(known)
    return n
