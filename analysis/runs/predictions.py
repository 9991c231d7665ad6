"""The item-by-item predictions of the runs in a table, downloaded in parallel and kept."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from analysis.runs.artifacts import THREADS, local_path
from analysis.runs.design import Issue
from whichlora.data.tasks.qa import token_f1

_KEYS = ("setting", "method", "task", "model", "language", "tl_ratio", "seed", "outcome", "run_id")


def fetch(table: pd.DataFrame, *, cache: Path | None = None) -> tuple[pd.DataFrame, tuple[Issue, ...]]:
    """Return the predictions behind a table of results.

    What has to be downloaded is kept in `cache`, by default the user's.

    Returns:
        one row per result and item: setting, method, task, model, language, tl_ratio, seed, outcome, run_id, id,
        correct (0 to 1: of a choice 0 or 1, of a written answer the token F1 with the first accepted answer), p_gold
        and confidence (probability of the gold label and of the most likely one; NaN without probabilities),
        predicted (the answer; "" for an invalid one). All texts are categories.
        And the results that have none, as issues.
    """
    rows = table.to_dict("records")

    def read(row: dict[str, Any]) -> pa.Table | Exception:
        try:
            name = f"predictions/{row['outcome']}.parquet"
            return pq.read_table(local_path(row["artifact_uri"], row["run_id"], name, cache))
        except (MlflowException, OSError, pa.ArrowException) as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        read_all = pool.map(read, rows)
        found = list(tqdm(read_all, total=len(rows), desc="predictions", unit="file", leave=False, disable=None))
    issues = tuple(
        Issue(row["run_id"], row["name"], f"has no {row['outcome']} predictions that can be read")
        for row, content in zip(rows, found, strict=True)
        if isinstance(content, Exception)
    )
    good = [position for position, content in enumerate(found) if isinstance(content, pa.Table)]
    return _frame(table.iloc[good], [found[position] for position in good]), issues


def _frame(table: pd.DataFrame, contents: list[pa.Table]) -> pd.DataFrame:
    counts = [content.num_rows for content in contents]
    columns: dict[str, Any] = {}
    for key in _KEYS:
        values = pd.Categorical(table[key])
        columns[key] = pd.Categorical.from_codes(np.repeat(values.codes, counts), categories=values.categories)
    for key in ("tl_ratio", "seed"):
        columns[key] = np.repeat(table[key].to_numpy(), counts)
    columns["id"] = pd.Categorical(_joined([content["id"] for content in contents]))
    scores = [_scores(content) for content in contents]
    for position, key in enumerate(("correct", "p_gold", "confidence")):
        parts = [score[position] for score in scores]
        columns[key] = np.concatenate(parts) if parts else np.empty(0, np.float32)
    columns["predicted"] = pd.Categorical(_joined([content["predicted"] for content in contents]))
    return pd.DataFrame(columns)


def _joined(columns: list[pa.ChunkedArray]) -> Any:
    if not columns:
        return []
    texts = [chunk.cast(pa.string()) for column in columns for chunk in column.chunks]
    return pa.chunked_array(texts, pa.string()).fill_null("").dictionary_encode().combine_chunks().to_pandas()


def _scores(content: pa.Table) -> tuple[np.ndarray[Any, Any], ...]:
    """Return (items,) each: correct, p_gold, confidence."""
    gold = content["gold"].to_numpy().astype(str)
    predicted = content["predicted"].cast(pa.string()).fill_null("").to_numpy().astype(str)
    labels = [name.removeprefix("p_") for name in content.column_names if name.startswith("p_")]
    nothing = np.full(len(gold), np.nan, np.float32)
    if labels:
        chances = np.stack([content[f"p_{label}"].to_numpy() for label in labels], axis=1)
        own = np.where(gold[:, None] == np.array(labels)[None], chances, 0).sum(axis=1)
        return (gold == predicted).astype(np.float32), own.astype(np.float32), chances.max(1).astype(np.float32)
    shares = [_written(p, g) for p, g in zip(predicted, gold, strict=True)]
    return np.array(shares, np.float32), nothing, nothing


@functools.lru_cache(maxsize=2**18)
def _written(predicted: str, gold: str) -> float:
    return token_f1(predicted, gold)
