"""Compares what methods forget: score on tasks that were not trained, and cross-entropy of general text."""

from __future__ import annotations

import pandas as pd

from analysis.measures import scores
from analysis.measures.costs import forgetting_columns
from analysis.measures.summaries import CELL, summarise
from analysis.records import Record
from analysis.stats.cells import rows
from analysis.stats.differences import differences

FORGETTING, GENERAL_TEXT = "forgetting", "forgetting of general text"


def forgetting_records(table: pd.DataFrame) -> list[Record]:
    """Return the F1 lost on each untrained task that was scored before and after training, and the rise of the
    cross-entropy of each general text: means by cell, and all pairs of methods.
    """
    columns = {c.removeprefix("test/") for c in map(str, table) if c.startswith("test/") and c.endswith("/f1")}
    records: list[Record] = []
    for metric in sorted(c for c in columns - {"en/f1", "tl/f1"} if f"base/{c}" in table):
        lost = scores.forgetting(table, before=f"base/{metric}", after=f"test/{metric}")
        note = f"{metric.removesuffix('/f1')}, points below the base model"
        records += summarise(lost, analysis=FORGETTING, outcome="tl", by=("method",), note=note)
    for column, name in forgetting_columns(table).items():
        note = f"{name}, nats per token above the base model"
        analysis = f"{GENERAL_TEXT} in {name}"
        records += summarise(rows(table, "tl", column), analysis=analysis, outcome="tl", by=CELL, note=note)
        records += differences(table, outcome="tl", metric=column, analysis=analysis, unit="nats per token")
    return records
