"""Adjusts p for the number of comparisons.

Holm's method is written out here because statsmodels runs the garbage collector at each call, which takes a third of a
second with a large table in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.records import Record


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p adjusted by Holm (1979), which controls the family-wise error rate under any dependence."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def holm_records(records: list[Record]) -> list[Record]:
    """Adjust the p of a family of records by Holm; records without p are unchanged."""
    adjusted = iter(holm([record.p for record in records if record.p is not None]))
    return [
        r if r.p is None else Record(**{**vars(r), "p_adjusted": float(next(adjusted)), "correction": "holm"})
        for r in records
    ]
