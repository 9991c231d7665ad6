"""Finds the number that a table has in "Which LoRA?" (arXiv 2606.10428), if its runs are of the paper's design."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.runs.methods import UNTRAINED

_MAIN = {"f1": 2, "parameters": 1, "efficiency": 3, "hyperparameters": 10}
_RANKS = {"f1": 9, "f1-means": 5, "hyperparameters-alpha": 12}
_COMPOSITIONS = {"f1": 14}
_BY_MODEL: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("xnli", "Llama-3.1-8B"): _MAIN,
    ("xnli", "Llama-3.1-8B-Instruct"): _COMPOSITIONS,
    ("xnli", "Llama-3.2-3B"): {"f1": 7, "f1-means": 4},
    ("xnli", "Qwen3-8B"): {"f1": 8, "f1-means": 4},
    ("xnli", "Qwen3-8B-Base"): {"f1": 8, "f1-means": 4},
    ("tydiqa", "Llama-3.1-8B"): {"f1": 6, "hyperparameters": 11},
}
"""Numbers of tables by task and model, for the methods of Table 2."""
_COMPOSITION_SIZES = {2_000, 20_000}


def numbered(title: str, rows: pd.DataFrame, kind: str) -> str:
    """Return the title of a table with the paper's number, if it has one.

    Args:
        title: with a final full stop.
        rows: the results of the table's setting.
        kind: f1, f1-means, parameters, efficiency, hyperparameters or hyperparameters-alpha.
    """
    number = _numbers(rows).get(kind)
    return title if number is None else f"{title.removesuffix('.')} (Table {number} of “Which LoRA?”)."


def _numbers(rows: pd.DataFrame) -> Mapping[str, int]:
    """Return the numbers of the tables of a setting by kind."""
    trained = rows[rows["variant"] != UNTRAINED]
    settings = {
        (str(task), str(model).partition(" ")[0]) for task, model in zip(rows["task"], rows["model"], strict=True)
    }
    numbers: Mapping[str, int] = _BY_MODEL.get(settings.pop(), {}) if len(settings) == 1 else {}
    if numbers is not _MAIN:
        return numbers
    sizes = set(trained["train_size"].dropna()) if "train_size" in trained else set()
    if sizes and sizes <= _COMPOSITION_SIZES:
        return _COMPOSITIONS
    if _varies(trained, "layers"):
        return {"f1": 13}
    return _RANKS if _varies(trained, "rank") else _MAIN


def _varies(rows: pd.DataFrame, key: str) -> bool:
    """Return whether a method has several values of a hyperparameter."""
    return key in rows and bool((rows.groupby(["variant", "arm"])[key].nunique() > 1).any())
