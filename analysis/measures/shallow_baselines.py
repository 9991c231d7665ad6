"""What shallow methods score on the same items: no adapter should be praised for reaching it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.records import Record, find
from analysis.stats.cells import BLOCK_COLUMNS, rows

BEST_FLOOR = "best floor"
"""How the best of them in each run is called among the methods."""
REACHED = "at or below the best floor"


def best_floor(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the rows of an outcome that have floors, with the best of them as `floor`, in points like `value`."""
    frame = rows(table, outcome)
    columns = floor_columns(frame, outcome)
    best = 100 * frame[columns].astype(float).max(axis=1) if columns else pd.Series(dtype=float)
    frame = frame.assign(floor=best)
    return frame[frame["floor"].notna()]


def floor_columns(table: pd.DataFrame, outcome: str) -> list[str]:
    """Return the columns of floors: `floor/en/majority`, `floor/en/overlap` and so on."""
    return [column for column in map(str, table) if column.startswith(f"floor/{outcome}/")]


def floor_records(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return the mean of each floor and of the best in each run, and how many results do not exceed the latter.

    The latter are counted (n) of each method and, without a group, of all; the effect is their share in percent.
    """
    frame = best_floor(table, outcome)
    if frame.empty:
        return []
    where = "points, mean over blocks of language and ratio, of a shallow method on the same items"
    found = [
        mean_record("floor F1", (name.rpartition("/")[2],), outcome, frame, 100 * frame[name].astype(float), where)
        for name in floor_columns(frame, outcome)
        if frame[name].notna().any()
    ]
    found.append(mean_record("best floor F1", (), outcome, frame, frame["floor"], f"{where}, the best in each run"))
    reached = frame["value"] <= frame["floor"]
    note = f"{REACHED}: n results, effect is their share in percent"
    groups = [((), reached), *(((str(method),), own) for method, own in reached.groupby(frame["method"], sort=True))]
    found += [
        Record(
            outcome=outcome,
            analysis="floors",
            test=REACHED,
            groups=group,
            effect=100 * float(own.mean()),
            n=int(own.sum()),
            note=note,
        )
        for group, own in groups
    ]
    return found


def count_with_floor(records: Sequence[Record], outcome: str) -> tuple[int, int]:
    """Return how many results have a floor, and how many there are."""
    own = find(records, outcome=outcome, analysis="description")
    return sum(r.n or 0 for r in find(own, test="best floor F1")), sum(r.n or 0 for r in find(own, test="mean F1"))


def mean_record(
    test: str, groups: tuple[str, ...], outcome: str, frame: pd.DataFrame, values: pd.Series[float], note: str
) -> Record:
    """Return the mean of values over blocks, which weighs them as the means of methods are weighed; n values."""
    known = frame.assign(value=values).dropna(subset="value")
    by_block = known.groupby([column for column in BLOCK_COLUMNS if column in known])["value"].mean()
    effect, n = float(by_block.mean()), len(known)
    return Record(outcome=outcome, analysis="description", test=test, groups=groups, effect=effect, n=n, note=note)
