"""Finds blocks in which no method has been shown to exceed the shallow baselines; they say nothing about methods.

A block of language and ratio is at the floor if no method's mean over seeds exceeds the upper end of the 95 % Wilson
interval of the best shallow baseline on the same test items. The primary analysis leaves such blocks out. The rule is
fixed in advance and looks at levels, not at differences; `docs/statistics.md` has its false-alarm rates.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

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
    best = known.groupby(["block", "method"])["value"].mean().groupby("block").max()
    limits = known.assign(limit=_upper_limit(known)).groupby("block")[["floor", "limit"]].mean()
    at_floor = [name for name in best.index if best[name] <= limits.loc[name, "limit"]]
    note = "effect is the highest mean of a method, statistic the upper end of the 95% interval of the best floor"
    records = [
        Record(
            outcome=outcome,
            analysis="floors",
            test=AT_FLOOR,
            groups=(str(name),),
            effect=float(best[name]),
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


def _upper_limit(frame: pd.DataFrame) -> pd.Series[float]:
    """Return the upper end of the 95 % Wilson interval of each row's floor, in points; the floor if n is unknown."""
    items = frame["test_size"].astype(float) if "test_size" in frame else pd.Series(np.nan, frame.index)
    share = (frame["floor"] / 100).clip(0, 1)
    _, upper = proportion_confint((share * items).to_numpy(), items.to_numpy(), alpha=0.05, method="wilson")
    return pd.Series(100 * np.asarray(upper), frame.index).fillna(frame["floor"])
