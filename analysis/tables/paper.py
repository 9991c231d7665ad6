"""Builds the tables of each setting: F1 (in `f1`), parameters, costs (in `costs`) and hyperparameters."""

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
from analysis.tables.costs import efficiency_table, forgetting_table, inference_table
from analysis.tables.f1 import f1_table, language_means_table
from analysis.tables.formats import Table, cell
from analysis.tables.paper_numbers import numbered

_ADALORA = "AdaLoRA's parameters are the initial ones, by default 1.5 times its budget; the rank is that of the budget."


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
            ("inference", inference_table),
            ("forgetting", forgetting_table),
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
