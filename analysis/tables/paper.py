"""Builds the paper's tables for each setting: F1, parameters, efficiency and hyperparameters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set

import pandas as pd

from analysis.columns import SETTINGS
from analysis.measures.shallow_baselines import BEST_FLOOR, best_floor
from analysis.naming import legend, names_of
from analysis.records import Record
from analysis.runs.adapter_sizes import unadapted_note
from analysis.runs.methods import UNTRAINED, format_value, method_order
from analysis.tables.formats import Cell, Part, Table, best_and_second, cell, mean_and_sd

_Key = tuple[str, str, float, str]
"""Outcome, language, ratio and method."""
_F1_COLUMNS = ["setting", "language", "tl_ratio", "method", "outcome", "mean", "sd", "seeds"]
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
            ("parameters", parameter_table),
            ("efficiency", efficiency_table),
            ("hyperparameters", hyperparameter_table),
        ):
            printed, numbers = build(rows, name=f"{name}{suffix}", setting=str(setting))
            if printed is not None:
                tables.append(printed)
                records += numbers
    return tables, records


def f1_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate F1 in points, English / target language, by language, method and ratio.

    These are the paper's Tables 2, 4 to 9, 13 and 14.
    """
    ratios = sorted(set(rows["tl_ratio"]))
    languages = sorted(set(rows["language"]) - {""})
    names, outcomes = names_of(rows), [outcome for outcome in ("en", "tl") if outcome in set(rows["outcome"])]
    floors = _floors(rows)
    order = [*method_order(rows), *([BEST_FLOOR] if floors else ())]
    cells = _means(rows) | floors
    ranks = _ranks(cells, {*rows.loc[rows["variant"] == UNTRAINED, "method"], BEST_FLOOR})
    numbers, records, body = [], [], []
    for language in languages:
        for method in order:
            line: list[Cell] = [cell(language), cell(method)]
            for ratio in ratios:
                parts = []
                for outcome in outcomes:
                    # At ratio 0 all languages share one adapter, whose English result has an empty language.
                    key = next((c for c in (language, "") if (outcome, c, ratio, method) in cells), None)
                    if key is None or (outcome == "tl" and key == ""):
                        parts.append(Part("–"))
                        continue
                    mean, sd, n = cells[outcome, key, ratio, method]
                    parts.append(Part(mean_and_sd(mean, sd, 1), ranks.get((outcome, key, ratio, method), 0)))
                    numbers.append((setting, language, ratio, method, outcome, mean, sd, n))
                line.append(tuple(parts))
            body.append(tuple(line))
    for (outcome, language, ratio, method), (mean, sd, n) in cells.items():
        where = (method, setting, language or "every language", f"{ratio:g}")
        records.append(_record(outcome, "F1", where, mean, sd, n, "points, over seeds"))
    of_methods = [key for key in cells if key[3] != BEST_FLOOR]
    remarks = legend(languages) + " The best floor is the best shallow method on the same items." * bool(floors)
    if any(key[:2] == ("en", "") for key in of_methods):
        remarks += f" {names.source} at 0 % is that of one adapter for all languages."
    counts = {cells[key][2] > 1 for key in of_methods}
    seeds = "Mean ± standard deviation over seeds" if True in counts else "One seed a cell, so without a spread"
    seeds += " (without ±: one seed)" * (len(counts) > 1)
    caption = (
        f"{setting}. {names.score} in points, {names.listed(outcomes)}, by share of target-language items. {seeds}; "
        f"best of a column and language bold, second underlined.{remarks}"
    )
    table = Table(
        name=name,
        title=names.fill("{Score}."),
        caption=caption,
        header=("language", "method", *(f"{100 * ratio:g} %" for ratio in ratios)),
        rows=tuple(body),
        labels=2,
        numbers=pd.DataFrame(numbers, columns=_F1_COLUMNS),
    )
    return table, records


def parameter_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate the trainable parameters of each method; the paper's Table 1."""
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
                _record("", "trainable parameters", (method, setting), count, math.nan, len(adapters), "adapters")
            )
        records += [
            _record(
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
    """Tabulate time, GPU use and memory of training; the paper's Table 3.

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
            records.append(_record("", metric, (str(method), setting), mean, sd, n, "over adapters"))
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
    """Tabulate the hyperparameters of each method; the paper's Tables 10 to 12."""
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


def _means(rows: pd.DataFrame) -> dict[_Key, tuple[float, float, int]]:
    """Return mean, standard deviation and number of seeds, in points, by outcome, language, ratio and method."""
    grouped = (rows.assign(points=100 * rows["f1"])).groupby(["outcome", "language", "tl_ratio", "method"], sort=True)
    summary = grouped["points"].agg(["mean", "std", "size"])
    return {tuple(key): (float(m), float(s), int(n)) for key, m, s, n in summary.itertuples(name=None)}  # type: ignore[misc]


def _floors(rows: pd.DataFrame) -> dict[_Key, tuple[float, float, int]]:
    """Summarise the best floor like `_means`; runs on the same mixture share a floor, which counts once per seed."""
    floors: dict[_Key, tuple[float, float, int]] = {}
    for outcome in ("en", "tl"):
        by_seed = best_floor(rows, outcome).groupby(["language", "tl_ratio", "seed"])["floor"].mean()
        grouped = by_seed.groupby(["language", "tl_ratio"]).agg(["mean", "std", "size"])
        for (language, ratio), mean, sd, n in grouped.itertuples(name=None):
            floors[outcome, language, ratio, BEST_FLOOR] = (float(mean), float(sd), int(n))
    return floors


def _ranks(cells: Mapping[_Key, tuple[float, float, int]], untrained: Set[str]) -> dict[_Key, int]:
    """Rank the trained methods within each column and language."""
    columns: dict[tuple[str, str, float], dict[str, float]] = {}
    for (outcome, language, ratio, method), (mean, _, _) in cells.items():
        if method not in untrained:
            columns.setdefault((outcome, language, ratio), {})[method] = mean
    ranks: dict[_Key, int] = {}
    for column, means in columns.items():
        ranks |= {(*column, method): rank for method, rank in best_and_second(means, 1).items()}
    return ranks


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


def _record(outcome: str, test: str, groups: tuple[str, ...], mean: float, sd: float, n: int, note: str) -> Record:
    return Record(
        outcome=outcome,
        analysis="description",
        test=test,
        groups=groups,
        effect=mean,
        statistic=sd,
        n=n,
        note=f"effect is the mean, statistic the standard deviation, {note}",
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
