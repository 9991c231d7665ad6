"""Builds the paper's tables for each setting: F1 (in `f1`), parameters, efficiency and hyperparameters."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pandas as pd

from analysis.columns import SETTINGS
from analysis.records import Record, described
from analysis.runs.adapter_sizes import unadapted_note
from analysis.runs.methods import UNTRAINED, format_value, method_order
from analysis.tables.alphas import alpha_table
from analysis.tables.f1 import f1_table, language_means_table
from analysis.tables.formats import Part, Table, best_and_second, cell, mean_and_sd
from analysis.tables.paper_numbers import numbered

_LESS, _MORE = -1, 1
_ADALORA = "AdaLoRA's parameters are the initial ones, by default 1.5 times its budget; the rank is that of the budget."
EFFICIENCY = {
    # metric: heading, decimals, whether less or more is better
    "train/seconds": ("seconds", 0, _LESS),
    "train/examples_per_second": ("items/s", 2, _MORE),
    "gpu/utilization_mean": ("GPU %", 0, 0),
    "gpu/memory_mean_mb": ("GPU MiB, mean", 0, _LESS),
    "gpu/memory_max_mb": ("GPU MiB, peak", 0, _LESS),
    "gpu/temperature_mean_c": ("GPU °C", 1, 0),
    "gpu/energy_j": ("GPU J", 0, _LESS),
    "host/memory_max_mb": ("host MiB, peak", 0, 0),
    "host/cpu_mean": ("CPU %", 0, 0),
}


def make_tables(table: pd.DataFrame) -> tuple[list[Table], list[Record]]:
    """Return the tables of each setting, and a record for each number in them."""
    tables: list[Table] = []
    records: list[Record] = []
    several = table["setting"].nunique() > 1
    for number, (setting, rows) in enumerate(table.groupby("setting", sort=True), 1):
        suffix = f"-{number}-{_slug(str(setting))}" if several else ""
        for name, build in (
            ("f1", f1_table),
            ("f1-means", language_means_table),
            ("parameters", parameter_table),
            ("efficiency", efficiency_table),
            ("hyperparameters", hyperparameter_table),
            ("hyperparameters-alpha", alpha_table),
        ):
            printed, numbers = build(rows, name=f"{name}{suffix}", setting=str(setting))
            if printed is not None:
                tables.append(replace(printed, title=numbered(printed.title, rows, name)))
                records += numbers
    return tables, records


def parameter_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate the trainable parameters of each method."""
    if "adapter/trainable_parameters" not in rows:
        return None, []
    body, numbers, records = [], [], []
    for method in method_order(rows):
        adapters = rows[rows["method"] == method].drop_duplicates("adapter")
        counts = sorted(set(adapters["adapter/trainable_parameters"].dropna()))
        if not counts:
            continue
        shares = sorted(set(adapters.get("adapter/trainable_percent", pd.Series(dtype=float)).dropna()))
        fields = [_values(adapters, key) for key in ("rank", "target_modules", "layers")]
        size = " to ".join(f"{count:,.0f}" for count in counts)
        share = " to ".join(f"{value:.3f}" for value in shares)
        body.append((cell(method), cell(fields[1]), cell(fields[2]), cell(fields[0]), cell(size), cell(share)))
        for count in counts:
            numbers.append((setting, method, *fields, count))
            records.append(
                described("", "trainable parameters", (method, setting), count, math.nan, len(adapters), "adapters")
            )
        records += [
            described(
                "",
                "trainable parameters, % of the model",
                (method, setting),
                value,
                math.nan,
                len(adapters),
                "adapters",
            )
            for value in shares
        ]
    if not body:
        return None, []
    table = Table(
        name=name,
        title="Trainable parameters.",
        caption=f"{setting}. {_ADALORA if 'adalora' in set(rows['variant']) else ''} {unadapted_note(rows)}".strip(),
        header=("method", "modules", "blocks", "rank", "parameters", "% of the model"),
        rows=tuple(body),
        labels=3,
        numbers=pd.DataFrame(numbers, columns=["setting", "method", "rank", "modules", "blocks", "parameters"]),
    )
    return table, records


def efficiency_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate time, GPU use and memory of training.

    An adapter that several runs share counts once.
    """
    trained = rows[rows["adapter_of"].isna()] if "adapter_of" in rows else rows
    trained = trained.drop_duplicates("adapter")
    metrics = [metric for metric in EFFICIENCY if metric in trained and trained[metric].notna().any()]
    if not metrics:
        return None, []
    cells: dict[tuple[str, str], tuple[float, float, int]] = {}
    records, numbers = [], []
    for metric in metrics:
        for method, values in trained.dropna(subset=[metric]).groupby("method", sort=True)[metric]:
            mean, sd, n = float(values.mean()), float(values.std()), len(values)
            cells[metric, str(method)] = (mean, sd, n)
            records.append(described("", metric, (str(method), setting), mean, sd, n, "over adapters"))
            numbers.append((setting, str(method), metric, mean, sd, n))
    body = []
    methods = [method for method in method_order(rows) if any((metric, method) in cells for metric in metrics)]
    for method in methods:
        line = [cell(method)]
        for metric in metrics:
            _, decimals, better = EFFICIENCY[metric]
            if (metric, method) not in cells:
                line.append(cell("–"))
                continue
            mean, sd, _ = cells[metric, method]
            column = {m: better * cells[metric, m][0] for m in methods if (metric, m) in cells}
            rank = best_and_second(column, decimals).get(method, 0) if better else 0
            line.append((Part(mean_and_sd(mean, sd, decimals), rank),))
        body.append(tuple(line))
    gpu = "" if any(metric.startswith("gpu/") for metric in metrics) else " No GPU figures were logged."
    table = Table(
        name=name,
        title="Efficiency of training.",
        caption=f"{setting}. Mean ± standard deviation over adapters, best bold, second underlined.{gpu} Times are "
        "comparable only if all runs had the same device to themselves; host memory is that of a process that may have "
        "trained other adapters before.",
        header=("method", *(EFFICIENCY[metric][0] for metric in metrics)),
        rows=tuple(body),
        labels=1,
        numbers=pd.DataFrame(numbers, columns=["setting", "method", "metric", "mean", "sd", "adapters"]),
    )
    return table, records


def hyperparameter_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate the hyperparameters of each method."""
    fields = [key for key in SETTINGS if key in rows and rows[key].map(lambda v, k=key: format_value(k, v)).any()]
    methods = [m for m in method_order(rows) if (rows.loc[rows["method"] == m, "variant"] != UNTRAINED).any()]
    if not fields or not methods:
        return None, []
    values = {(m, key): _values(rows[rows["method"] == m], key) for m in methods for key in fields}
    records = [
        Record(outcome="", analysis="hyperparameters", test=key, groups=(m, setting), effect=_number(value), note=value)
        for (m, key), value in values.items()
        if value
    ]
    table = Table(
        name=name,
        title="Hyperparameters.",
        caption=f"{setting}. Several values: they differ between cells, such as the languages of a tuned arm.",
        header=("method", "arm", *(key.replace("_", " ") for key in fields)),
        rows=tuple(
            (cell(m), cell(_values(rows[rows["method"] == m], "arm")), *(cell(values[m, key] or "–") for key in fields))
            for m in methods
        ),
        labels=2,
        numbers=pd.DataFrame(
            [(setting, m, key, value) for (m, key), value in values.items()],
            columns=["setting", "method", "field", "value"],
        ),
    )
    return table, records


def arms_by_method(rows: pd.DataFrame) -> dict[str, str]:
    """Return the arm of each method; all of them for a method whose arms resolved to the same values."""
    return {str(method): _values(runs, "arm") for method, runs in rows.groupby("method", sort=True)}


def _values(rows: pd.DataFrame, key: str) -> str:
    """Return the distinct values of a field, joined."""
    if key not in rows:
        return ""
    ordered = rows.sort_values(key, kind="stable")[key]
    return "; ".join(value for value in dict.fromkeys(format_value(key, value) for value in ordered) if value)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
