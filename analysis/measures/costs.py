"""Compares what methods cost: Pareto fronts of score and costs, and times of training and inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.measures import device_use, scores
from analysis.records import Record
from analysis.stats.cells import rows
from analysis.stats.differences import differences
from whichlora.data.language_names import language_name

PARAMETERS, SIZE, LATENCY_MS = "adapter/trainable_parameters", "adapter/size_mb", "inference/token_ms"
COSTS = {
    PARAMETERS: "trainable parameters",
    SIZE: "adapter file, MB",
    "train/seconds": "seconds of training",
    "train/price": "price of training",
    LATENCY_MS: "inference, ms a token",
    "gpu/memory_max_mb": "GPU memory, MiB",
    "gpu/energy_j": "energy, J",
}
"""Costs with their names. Host memory is not included, because a process that trains several adapters in sequence
retains some of it. Forgetting of general text is a cost as well, see `costs_of`."""
ALL_COSTS = "pareto, all costs"
TIME, LATENCY = "training time", "inference time"
OVERLAPPING, PLACES = "runs that overlapped in time", "machines or work folders"
_FORGOTTEN, _RISE = "forgetting/", "/ce_rise"


def forgetting_columns(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns with the rise of cross-entropy of a general text, with the name of the language or text."""
    columns = sorted(c for c in map(str, table) if c.startswith(_FORGOTTEN) and c.endswith(_RISE))
    return {c: language_name(c[len(_FORGOTTEN) : -len(_RISE)]) for c in columns if table[c].notna().any()}


def costs_of(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns of a table that are costs and can be compared, with their names.

    The time of inference is one only if the runs had the device to themselves.
    """
    known = {cost: name for cost, name in COSTS.items() if cost in table and table[cost].notna().any()}
    if device_use.not_comparable(table, LATENCY_MS):
        known.pop(LATENCY_MS, None)
    forgotten = forgetting_columns(table)
    return known | {column: f"forgetting in {name}, nats a token" for column, name in forgotten.items()}


def pareto_records(table: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Return the mean cost (effect) and mean F1 (statistic) of each method; the note says if it is on the front.

    One front is of F1 and each cost, and one of F1 and all of them that depend on the method alone: parameters, file,
    time of inference and forgetting.
    """
    records = [
        Record(
            outcome=outcome,
            analysis="pareto",
            test=cost,
            groups=(row["method"],),
            statistic=row["value"],
            effect=row["cost"],
            n=row["n"],
            note="on the front" if row["front"] else "another is cheaper and at least as good",
        )
        for cost in costs_of(table)
        for row in scores.pareto(table, outcome=outcome, cost=cost).to_dict("records")
    ]
    return records + _joint_front(table, outcome)


def _joint_front(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return which methods no other equals in F1 and all costs and exceeds in one; empty for less than two costs."""
    found = costs_of(table)
    names = {cost: found[cost] for cost in (PARAMETERS, SIZE, LATENCY_MS, *forgetting_columns(table)) if cost in found}
    frame = rows(table, outcome)
    if len(names) < 2 or frame.empty:
        return []
    known = frame.dropna(subset=list(names))
    values = known.groupby("method", sort=True)["value"].mean()
    adapters = known.drop_duplicates([c for c in ("method", "adapter") if c in known])
    costs = adapters.groupby("method", sort=True)[list(names)].mean()
    merits = np.column_stack([values, -costs.to_numpy(dtype=float)])
    counts = known.groupby("method", sort=True).size()
    text = f"{len(names)} costs: {'; '.join(names.values())}"
    return [
        Record(
            outcome=outcome,
            analysis=ALL_COSTS,
            test=text,
            groups=(str(method),),
            statistic=values[method],
            n=int(counts[method]),
            note=_dominated_by(position, merits, list(map(str, values.index))),
        )
        for position, method in enumerate(values.index)
    ]


def _dominated_by(position: int, merits: np.ndarray, names: Sequence[str]) -> str:
    own = merits[position]
    better = (merits >= own).all(axis=1) & (merits > own).any(axis=1)
    rivals = [name for name, wins in zip(names, better, strict=True) if wins]
    return "on the front" if not rivals else f"at least as good in all and better in one: {', '.join(rivals)}"


def device_times(table: pd.DataFrame) -> list[Record]:
    """Return the comparison of the times of training and inference, and what makes them unfit: runs that overlapped in
    time, or several machines.
    """
    overlaps = device_use.overlapping(table, "train/seconds")
    if overlaps is None:
        return []  # results from files, of which nobody knows whether they had the device to themselves
    note = "n runs whose time from start to end overlaps with that of another run here"
    records = [Record(outcome="", analysis="design", test=OVERLAPPING, groups=(), n=overlaps, note=note)]
    if (places := device_use.places(table, "train/seconds")) > 1:
        records.append(Record(outcome="", analysis="design", test=PLACES, groups=(), n=places))
    for metric, analysis, unit in (("train/seconds", TIME, "seconds"), (LATENCY_MS, LATENCY, "milliseconds")):
        if metric in table and table[metric].notna().any():
            records += differences(table, outcome="tl", metric=metric, analysis=analysis, unit=unit)
    return records
