"""Fetches the item-level predictions of the runs in a table, in parallel and with a cache."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from analysis.runs.artifacts import THREADS, local_path
from analysis.runs.design import Issue
from whichlora.data.metric_names import SENTENCES_RETRIEVED, WORDS_RETRIEVED
from whichlora.data.tasks.qa import token_f1

UNREADABLE = (MlflowException, OSError, pa.ArrowException, KeyError, TypeError, ValueError)
"""Exceptions for predictions that are missing or damaged."""
_KEYS = ("setting", "method", "task", "model", "language", "tl_ratio", "seed", "outcome", "run_id")


def fetch(
    table: pd.DataFrame, *, known: Mapping[tuple[str, str], Answers] | None = None, cache: Path | None = None
) -> tuple[pd.DataFrame, tuple[Issue, ...]]:
    """Return the predictions behind a table of results.

    Downloaded files are kept in `cache`, by default the user cache.

    Args:
        known: answers that were read with the results, by run id and outcome.

    Returns:
        a frame with one row per result and item: setting, method, task, model, language, tl_ratio, seed, outcome,
        run_id, id, correct (0 to 1: 0 or 1 for a choice, P@1 for a retrieved translation, for a generated answer its
        token F1 with the first accepted answer), p_gold and confidence (probability of the gold label and of the most
        likely label; NaN without probabilities), gold (the right answer) and predicted (the given one; "" for an
        invalid one). All texts are categoricals.
        And the MLflow runs' results without readable predictions, as issues.
    """
    rows = table.to_dict("records")

    def read(row: dict[str, Any]) -> Answers | Exception | None:
        if not row["artifact_uri"]:  # from a file, which has no artifacts
            return (known or {}).get((row["run_id"], row["outcome"]))
        try:
            return read_answers(row["artifact_uri"], row["run_id"], row["outcome"], cache=cache)
        except UNREADABLE as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        read_all = pool.map(read, rows)
        contents = list(tqdm(read_all, total=len(rows), desc="predictions", unit="file", leave=False, disable=None))
    issues = tuple(
        Issue(row["run_id"], row["name"], f"has no {row['outcome']} predictions that can be read")
        for row, content in zip(rows, contents, strict=True)
        if isinstance(content, Exception)
    )
    readable = {i: content for i, content in enumerate(contents) if isinstance(content, Answers)}
    return _frame(table.iloc[list(readable)], list(readable.values())), issues


class Answers(NamedTuple):
    """The answers of one result, one per item.

    Attributes:
        scores: correct, p_gold and confidence, as in the frame of `fetch`.
    """

    ids: pa.ChunkedArray
    gold: pa.ChunkedArray
    predicted: pa.ChunkedArray
    scores: tuple[np.ndarray[Any, Any], ...]


def read_answers(artifact_uri: str, run_id: str, test_set: str, *, cache: Path | None = None) -> Answers:
    """Return the answers of a run on a test set, such as `tl`; a downloaded file is kept in `cache`, see `fetch`.

    Raises:
        UNREADABLE: there is no such file, or a column is missing or of another type.
    """
    content = pq.read_table(local_path(artifact_uri, run_id, f"predictions/{test_set}.parquet", cache))
    ids, gold, predicted = (content[name].cast(pa.string()).fill_null("") for name in ("id", "gold", "predicted"))
    return Answers(ids, gold, predicted, _scores(content))


def _frame(table: pd.DataFrame, contents: list[Answers]) -> pd.DataFrame:
    counts = [len(content.ids) for content in contents]
    columns: dict[str, Any] = {}
    for key in _KEYS:
        values = pd.Categorical(table[key])
        columns[key] = pd.Categorical.from_codes(np.repeat(values.codes, counts), categories=values.categories)
    for key in ("tl_ratio", "seed"):
        columns[key] = np.repeat(table[key].to_numpy(), counts)
    columns["id"] = pd.Categorical(_concatenated([content.ids for content in contents]))
    columns["gold"] = pd.Categorical(_concatenated([content.gold for content in contents]))
    for position, key in enumerate(("correct", "p_gold", "confidence")):
        parts = [content.scores[position] for content in contents]
        columns[key] = np.concatenate(parts) if parts else np.empty(0, np.float32)
    columns["predicted"] = pd.Categorical(_concatenated([content.predicted for content in contents]))
    return pd.DataFrame(columns)


def _concatenated(columns: list[pa.ChunkedArray]) -> Any:
    if not columns:
        return []
    texts = [chunk for column in columns for chunk in column.chunks]
    return pa.chunked_array(texts, pa.string()).dictionary_encode().combine_chunks().to_pandas()


def _scores(content: pa.Table) -> tuple[np.ndarray[Any, Any], ...]:
    """Return correct, p_gold and confidence, each of shape (items,)."""
    gold = content["gold"].cast(pa.string()).fill_null("").to_numpy().astype(str)
    predicted = content["predicted"].cast(pa.string()).fill_null("").to_numpy().astype(str)
    labels = [name.removeprefix("p_") for name in content.column_names if name.startswith("p_")]
    missing = np.full(len(gold), np.nan, np.float32)
    if labels:
        probabilities = np.stack([content[f"p_{label}"].to_numpy() for label in labels], axis=1).astype(float)
        p_gold = np.where(gold[:, None] == np.array(labels)[None], probabilities, 0).sum(axis=1)
        return (
            (gold == predicted).astype(np.float32),
            p_gold.astype(np.float32),
            probabilities.max(1).astype(np.float32),
        )
    retrieved = next((name for name in (WORDS_RETRIEVED, SENTENCES_RETRIEVED) if name in content.column_names), None)
    if retrieved:
        return content[retrieved].to_numpy().astype(np.float32), missing, missing
    scores = [_cached_token_f1(p, g) for p, g in zip(predicted, gold, strict=True)]
    return np.array(scores, np.float32), missing, missing


@functools.lru_cache(maxsize=2**18)
def _cached_token_f1(predicted: str, gold: str) -> float:
    return token_f1(predicted, gold)
