"""Builds the tables of costs: of training, of inference, and of what is forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from analysis.decimals import fixed, interval
from analysis.measures.costs import forgetting_columns
from analysis.measures.device_use import not_comparable
from analysis.records import Record, described
from analysis.runs.methods import UNTRAINED, method_order
from analysis.stats.distributions import half_width
from analysis.tables.formats import Cell, Part, Table, best_and_second, cell, mean_and_sd

_LESS, _MORE = -1, 1
Columns = Mapping[str, tuple[str, int, int]]
"""Metrics with heading, decimals, and whether less or more is better (0 for neither)."""
EFFICIENCY: Columns = {
    "train/seconds": ("seconds", 0, _LESS),
    "train/examples_per_second": ("items/s", 2, _MORE),
    "train/price": ("price", 4, _LESS),
    "gpu/utilization_mean": ("GPU %", 0, 0),
    "gpu/memory_mean_mb": ("GPU MiB, mean", 0, _LESS),
    "gpu/memory_max_mb": ("GPU MiB, peak", 0, _LESS),
    "gpu/temperature_mean_c": ("GPU °C", 1, 0),
    "gpu/energy_j": ("GPU J", 0, _LESS),
    "host/memory_max_mb": ("host MiB, peak", 0, 0),
    "host/cpu_mean": ("CPU %", 0, 0),
}
INFERENCE: Columns = {
    "inference/first_token_ms": ("first token, ms", 1, _LESS),
    "inference/token_ms": ("token, ms", 1, _LESS),
    "inference/tokens_per_second": ("tokens/s", 1, _MORE),
    "inference/merged/first_token_ms": ("merged: first token, ms", 1, _LESS),
    "inference/merged/token_ms": ("merged: token, ms", 1, _LESS),
    "inference/merged/tokens_per_second": ("merged: tokens/s", 1, _MORE),
    "inference/weights_mb": ("weights, MB", 1, _LESS),
    "inference/memory_max_mb": ("GPU MB, peak", 1, _LESS),
    "inference/merged/memory_max_mb": ("merged: GPU MB, peak", 1, _LESS),
    "adapter/size_mb": ("adapter file, MB", 2, _LESS),
}
_SETUP = ("inference_prompt_tokens", "inference_new_tokens", "inference_batch_size")
_LOAD, _ALONE = "inference/other_load", 0.2
_MIN_VALUES = 3
"""Least number of adapters for an interval."""


def efficiency_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate time, GPU use and memory of training.

    An adapter that several runs share counts once.
    """
    caption = (
        "Mean ± standard deviation over adapters, best bold, second underlined.{gpu} Times are comparable only if all "
        "runs had the same device to themselves; host memory is that of a process that may have trained other adapters "
        "before."
    )
    shown = [metric for metric in EFFICIENCY if metric in rows and rows[metric].notna().any()]
    gpu = "" if any(metric.startswith("gpu/") for metric in shown) else " No GPU figures were logged."
    text = f"{setting}. {caption.format(gpu=gpu)}"
    return _table_of(rows, EFFICIENCY, name=name, setting=setting, title="Efficiency of training.", caption=text)


def inference_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate time, throughput and memory of inference, with the adapter unmerged and merged, and its file."""
    if "inference/token_ms" not in rows or rows["inference/token_ms"].isna().all():
        return None, []
    measured = rows[rows["inference/token_ms"].notna()]
    caption = f"{setting}. Mean ± standard deviation over adapters, best bold, second underlined. {_setup(measured)}"
    if reason := not_comparable(measured, "inference/token_ms"):
        caption += f" The times are not comparable: {reason}."
    if _LOAD in measured and (load := float(measured[_LOAD].mean())) > _ALONE:
        caption += f" Other processes kept {load:.1f} CPU cores busy on average while they were taken."
    return _table_of(measured, INFERENCE, name=name, setting=setting, title="Costs of inference.", caption=caption)


def _setup(rows: pd.DataFrame) -> str:
    """Return a sentence on the prompts with which inference was measured, as the params of the runs say."""
    if not set(_SETUP) <= set(rows):
        return "Adapters are not merged unless a heading says so."
    prompt, new, batch = ("; ".join(sorted({f"{float(v):g}" for v in rows[key].dropna()})) for key in _SETUP)
    return (
        f"Greedy decoding of {new} tokens after prompts of {prompt} tokens: times of one prompt to the first token and "
        f"to each further one (medians); tokens/s of {batch} prompts at a time, without the first tokens. Adapters are "
        "not merged unless a heading says so; what cannot be merged has no such figures."
    )


def _table_of(
    rows: pd.DataFrame, columns: Columns, *, name: str, setting: str, title: str, caption: str
) -> tuple[Table | None, list[Record]]:
    """Tabulate the mean and standard deviation over adapters of those metrics that were logged."""
    trained = rows[rows["adapter_of"].isna()] if "adapter_of" in rows else rows
    trained = trained.drop_duplicates("adapter")
    metrics = [metric for metric in columns if metric in trained and trained[metric].notna().any()]
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
            _, decimals, better = columns[metric]
            if (metric, method) not in cells:
                line.append(cell("–"))
                continue
            mean, sd, _ = cells[metric, method]
            column = {m: better * cells[metric, m][0] for m in methods if (metric, m) in cells}
            rank = best_and_second(column, decimals).get(method, 0) if better else 0
            line.append((Part(mean_and_sd(mean, sd, decimals), rank),))
        body.append(tuple(line))
    table = Table(
        name=name,
        title=title,
        caption=caption,
        header=("method", *(columns[metric][0] for metric in metrics)),
        rows=tuple(body),
        labels=1,
        numbers=pd.DataFrame(numbers, columns=["setting", "method", "metric", "mean", "sd", "adapters"]),
    )
    return table, records


def forgetting_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate the rise of the cross-entropy of general text, nats per token, with a 95 % t interval over adapters."""
    columns = forgetting_columns(rows)
    trained = rows[rows["variant"] != UNTRAINED].drop_duplicates("adapter")
    if not columns or trained.empty:
        return None, []
    records, numbers, body = [], [], []
    for method in method_order(trained):
        line: list[Cell] = [cell(method)]
        for column in columns:
            values = trained.loc[trained["method"] == method, column].dropna()
            if values.empty:
                line.append(cell("–"))
                continue
            mean, sd, n = float(values.mean()), float(values.std()), len(values)
            half = float(half_width(sd, n)) if n >= _MIN_VALUES else math.nan
            ends = f" ({interval(mean - half, mean + half, 3)})" if math.isfinite(half) else ""
            line.append(cell(fixed(mean, 3, sign=True) + ends))
            records.append(described("", column, (method, setting), mean, sd, n, "nats per token, over adapters"))
            numbers.append((setting, method, column, mean, mean - half, mean + half, n))
        body.append(tuple(line))
    before = [_before(trained, column, language) for column, language in columns.items()]
    caption = (
        f"{setting}. Rise of the cross-entropy of general text from the plain base model to the trained one, nats per "
        "token of the model's tokenizer, with the 95 % interval of the mean over adapters (Student's t) where there "
        f"are {_MIN_VALUES} or more. {' '.join(filter(None, before))} Less is better; below 0 the text has become more "
        "likely."
    )
    table = Table(
        name=name,
        title="Forgetting of general text.",
        caption=caption,
        header=("method", *columns.values()),
        rows=tuple(body),
        labels=1,
        numbers=pd.DataFrame(numbers, columns=["setting", "method", "metric", "mean", "low", "high", "adapters"]),
    )
    return table, records


def _before(rows: pd.DataFrame, column: str, language: str) -> str:
    """Return a sentence on the base model's cross-entropy and the number of tokens."""
    base, tokens = (rows.get(column.replace("ce_rise", key)) for key in ("base_ce", "tokens"))
    if base is None or tokens is None or base.isna().all() or tokens.isna().all():
        return ""
    return f"{language}: {base.dropna().iloc[0]:.3f} before, {tokens.dropna().iloc[0]:,.0f} tokens."
