"""Collapsed runs: those whose score is no better than the floor, given the number of test items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from analysis.measures.floor_limits import upper_limits
from analysis.measures.shallow_baselines import best_floor
from analysis.naming import names_of
from analysis.records import Record
from analysis.stats.cells import BLOCK_COLUMNS, labels, rows, run_label

ANALYSIS, SHARE, RUN = "collapsed runs", "share of runs", "run"
RULE = (
    "a run has collapsed if its {score} is at or below the upper end of the floor's 95% interval (Wilson, at its "
    "number of test items); the floor is that of the best shallow baseline on the same items, else the untrained base "
    "model's"
)


def collapsed(table: pd.DataFrame, outcome: str, answered: Mapping[Any, int]) -> pd.DataFrame:
    """Return the rows that have a floor, with `floor` and `limit` in points, `n` (test items) and `collapsed`.

    Args:
        answered: the number of answers with a prediction by run; other runs have `test_size`.
    """
    frame = rows(table, outcome)
    floor = 100 * frame["base_f1"].astype(float) if "base_f1" in frame else pd.Series(index=frame.index, dtype=float)
    floor = best_floor(table, outcome)["floor"].reindex(frame.index).fillna(floor)
    size = pd.Series(frame.get("test_size", pd.Series(index=frame.index, dtype=float)), dtype=float)
    n = frame["run_id"].map(answered).astype(float).fillna(size)
    frame = frame.assign(floor=floor, n=n)
    frame = frame[frame["floor"].notna() & (frame["n"] > 0)]
    limit = upper_limits(frame, outcome, frame["n"], alpha=0.05)
    return frame.assign(limit=limit, collapsed=frame["value"] <= limit)


def collapse_records(table: pd.DataFrame, items: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Return the share of collapsed runs of each method, and a record for each such run.

    The effect of a run's record is F1, its interval the floor and the limit.
    """
    answers = items[items["outcome"] == outcome] if len(items) else items
    answered = answers.groupby("run_id", observed=True).size().to_dict() if len(answers) else {}
    frame = collapsed(table, outcome, answered)
    if frame.empty:
        note = "no test: the runs have neither a shallow baseline nor a base model's score, or no number of test items"
        return [Record(outcome=outcome, analysis=ANALYSIS, test=SHARE, groups=(), note=note)]
    records, names = [], names_of(table)
    for method, told in frame.groupby("method", sort=True)["collapsed"]:
        low, high = proportion_confint(int(told.sum()), len(told), method="wilson")
        records.append(
            Record(
                outcome=outcome,
                analysis=ANALYSIS,
                test=SHARE,
                groups=(str(method),),
                statistic=float(told.sum()),
                effect=100 * float(told.mean()),
                interval=(round(100 * float(low), 10), round(100 * float(high), 10)),
                n=len(told),
                note=f"percent; statistic: collapsed runs, n: runs with a floor. Rule: {names.fill(RULE)}",
            )
        )
    frame = frame.assign(block=labels(frame, BLOCK_COLUMNS))
    for row in frame[frame["collapsed"]].to_dict("records"):
        records.append(
            Record(
                outcome=outcome,
                analysis=ANALYSIS,
                test=RUN,
                groups=(run_label(row["method"], row["block"], row["seed"]),),
                effect=float(row["value"]),
                interval=(float(row["floor"]), float(row["limit"])),
                n=int(row["n"]),
                note=f"effect: {names.score}; interval: the floor and the limit of the rule; n test items",
            )
        )
    return records
