"""Reads the size of each method's saved adapter from the artifacts of one of its runs, and what it leaves out."""

from __future__ import annotations

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis.runs.methods import UNTRAINED

SIZE, BYTES = "adapter/size_mb", "adapter/file_bytes"
_TRIES = 3
_WEIGHTS = (".safetensors", ".bin")
"""Endings of the files that count; the tokenizer and the model card lie beside them."""


def join_sizes(client: MlflowClient, table: pd.DataFrame) -> pd.DataFrame:
    """Add the size of the weights in `adapter/`, in MB (10^6 bytes), NaN if no run of the method has them.

    Runs log it in bytes; results from files keep the size that they give. For others the artifacts tell.

    The adapters of a method in a setting have the same tensors, so one of its runs is asked, and up to two more if that
    one has none: the adapter of a run that reused another's is with the other.
    """
    if table.empty:
        return table
    if BYTES in table:
        logged = table[BYTES] / 1e6
        table = table.assign(**{SIZE: table[SIZE].fillna(logged) if SIZE in table else logged})
    trained = table[(table["variant"] != UNTRAINED) & table["run_id"].str.fullmatch("[0-9a-f]{32}")]
    if SIZE in table:
        trained = trained[table.loc[trained.index, SIZE].isna()]
    sizes = {
        key: _first_size(client, list(dict.fromkeys(runs)))
        for key, runs in trained.groupby(["setting", "method"], sort=False)["run_id"]
    }
    keys = zip(table["setting"], table["method"], strict=True)
    fetched = pd.Series([sizes.get(key, float("nan")) for key in keys], table.index)
    return table.assign(**{SIZE: table[SIZE].fillna(fetched) if SIZE in table else fetched})


def unadapted_note(rows: pd.DataFrame) -> str:
    """Return a sentence on the matrices that no adapter reaches, as a run's param `not_adapted` lists them."""
    texts: list[str] = list(rows["not_adapted"].dropna().unique()) if "not_adapted" in rows else []
    return f"Without an adapter (share of the blocks' weights): {'; '.join(sorted(texts))}." if texts else ""


def _first_size(client: MlflowClient, run_ids: list[str]) -> float:
    for run_id in run_ids[:_TRIES]:
        try:
            files = client.list_artifacts(run_id, "adapter")
            size = sum(file.file_size or 0 for file in files if file.path.endswith(_WEIGHTS))
        except (MlflowException, OSError):
            continue
        if size:
            return size / 1e6
    return float("nan")
