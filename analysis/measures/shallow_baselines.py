"""Scores of shallow baselines (floors) on the same items, which an adapter must exceed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.records import Record, find
from analysis.stats.cells import BLOCK_COLUMNS, rows

BEST_FLOOR = "best floor"
"""Label of each run's best floor, where it is listed among the methods."""
REACHED = "at or below the best floor"


def best_floor(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the rows of an outcome that have floors, with the best one as `floor`, in points like `value`."""
    frame = rows(table, outcome)
    columns = floor_columns(frame, outcome)
    best = 100 * frame[columns].astype(float).max(axis=1) if columns else pd.Series(dtype=float)
    frame = frame.assign(floor=best)
    return frame[frame["floor"].notna()]


def floor_columns(table: pd.DataFrame, outcome: str) -> list[str]:
    """Return the floor columns, such as `floor/en/majority` and `floor/en/overlap`."""
    return [column for column in map(str, table) if column.startswith(f"floor/{outcome}/")]


def floor_records(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return the mean of each floor, the mean of the best floor, and the number of results at or below the best floor.

    There is such a number (n) for each method and, without groups, for all; the effect is the share in percent.
    """
    frame = best_floor(table, outcome)
    if frame.empty:
        return []
    note_mean = "points, mean over blocks of language and ratio, of a shallow method on the same items"
    records = [
        mean_record("floor F1", (name.rpartition("/")[2],), outcome, frame, 100 * frame[name].astype(float), note_mean)
        for name in floor_columns(frame, outcome)
        if frame[name].notna().any()
    ]
    records.append(
        mean_record("best floor F1", (), outcome, frame, frame["floor"], f"{note_mean}, the best in each run")
    )
    reached = frame["value"] <= frame["floor"]
    note = f"{REACHED}: n results, effect is their share in percent"
    groups = [((), reached), *(((str(method),), part) for method, part in reached.groupby(frame["method"], sort=True))]
    records += [
        Record(
            outcome=outcome,
            analysis="floors",
            test=REACHED,
            groups=group,
            effect=100 * float(part.mean()),
            n=int(part.sum()),
            note=note,
        )
        for group, part in groups
    ]
    return records


def count_with_floor(records: Sequence[Record], outcome: str) -> tuple[int, int]:
    """Return the number of results with a floor, and the number of all results."""
    descriptions = find(records, outcome=outcome, analysis="description")
    return sum(r.n or 0 for r in find(descriptions, test="best floor F1")), sum(
        r.n or 0 for r in find(descriptions, test="mean F1")
    )


def mean_record(
    test: str, groups: tuple[str, ...], outcome: str, frame: pd.DataFrame, values: pd.Series[float], note: str
) -> Record:
    """Return the mean of values over blocks, weighted like the means of methods; n is the number of values."""
    known = frame.assign(value=values).dropna(subset="value")
    by_block = known.groupby([column for column in BLOCK_COLUMNS if column in known])["value"].mean()
    effect, n = float(by_block.mean()), len(known)
    return Record(outcome=outcome, analysis="description", test=test, groups=groups, effect=effect, n=n, note=note)
