"""Finds blocks in which methods are not shown to exceed the shallow baselines; these say nothing about methods.

A block of language and ratio is at the floor unless the median of the methods' means over seeds exceeds the upper end
of the 95 % interval of the best shallow baseline on the same test items (see `floor_limits`), or the highest of them
that of the 99.99 % interval. The primary analysis leaves such blocks out. The rule is fixed in advance. It looks at the
median, because blocks chosen by their highest mean have more large differences than chance would give;
`docs/statistics.md` has its false-alarm rates.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.measures.floor_limits import upper_limits
from analysis.measures.shallow_baselines import best_floor
from analysis.records import Record
from analysis.stats.cells import BLOCK_COLUMNS, labels, rows

AT_FLOOR = "block at the floor"
KEPT = "blocks above the floor"


def split(table: pd.DataFrame, outcome: str) -> tuple[pd.DataFrame, list[Record]]:
    """Return the results in blocks above the floor, and a record for each block at the floor.

    A block without a known floor is kept. If no block with several methods is left, all are returned, with the records.
    """
    frame = rows(table, outcome)
    known = best_floor(table, outcome)
    if known.empty:
        return frame, []
    block = labels(frame, BLOCK_COLUMNS)
    known = known.assign(block=block.reindex(known.index))
    means = known.groupby(["block", "method"])["value"].mean().groupby("block").agg(["median", "max"])
    limits = known.assign(limit=_upper_limit(known, outcome, 0.05), far=_upper_limit(known, outcome, 0.0001))
    limits = limits.groupby("block")[["limit", "far"]].mean()
    above = (means["median"] > limits["limit"]) | (means["max"] > limits["far"])
    at_floor = [name for name in means.index if not above[name]]
    note = "effect is the median of the methods' means, statistic the upper end of the 95% interval of the best floor"
    records = [
        Record(
            outcome=outcome,
            analysis="floors",
            test=AT_FLOOR,
            groups=(str(name),),
            effect=float(means.loc[name, "median"]),
            statistic=float(limits.loc[name, "limit"]),
            n=int((known["block"] == name).sum()),
            note=f"n results; {note}",
        )
        for name in at_floor
    ]
    kept = frame[~block.isin(at_floor)]
    left = int((kept.groupby(block[kept.index])["method"].nunique() > 1).sum())
    if at_floor:
        note = "n blocks with several methods, which the primary analysis is of; if there is none, it is of all blocks"
        records.append(Record(outcome=outcome, analysis="floors", test=KEPT, groups=(), n=left, note=note))
    return (kept if left else frame), records


def _upper_limit(frame: pd.DataFrame, outcome: str, alpha: float) -> pd.Series[float]:
    """Return the upper end of the interval of each row's floor, in points; the floor if the items are not known."""
    items = frame["test_size"].astype(float) if "test_size" in frame else pd.Series(np.nan, frame.index)
    return upper_limits(frame, outcome, items, alpha=alpha).fillna(frame["floor"])
