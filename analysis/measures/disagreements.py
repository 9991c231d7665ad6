"""Finds the test items on which the methods disagree, for a closer look at the answers themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.records import Record
from analysis.stats.cells import format_level

ANALYSIS = "disagreements"
COLUMNS = ("setting", "outcome", "language", "tl_ratio", "id")
"""What a row is: an item in a cell of the design. The outcome says in which language the item is."""
MOST = 10_000
"""Number of rows that the file has at most."""
SHOWN = 5
"""Number of items of each outcome that the page shows."""


def disagreements(items: pd.DataFrame) -> pd.DataFrame:
    """Return the items that not all methods answer alike, those on which the methods differ most first.

    Args:
        items: predictions, as `predictions.fetch` returns them.

    Returns:
        a row for each cell and item: `COLUMNS`, gold, disagreement (standard deviation over methods of the share of
        seeds with a right answer), and for each method that share ("right: METHOD"; for a generated answer the mean of
        its token F1), its number of seeds ("seeds: METHOD") and the most frequent of its answers ("answer: METHOD").
        At most `MOST` rows.
    """
    known = items[items["correct"].notna()] if len(items) else items
    keys = [key for key in COLUMNS if key in known]
    if not len(known) or known["method"].nunique() < 2:
        return pd.DataFrame(columns=[*keys, "gold", "disagreement"])
    row_of, rows = _rows(known, keys)
    method_of, methods = pd.factorize(known["method"].astype(str), sort=True)
    cell_of = row_of * len(methods) + method_of
    size = len(rows) * len(methods)
    seeds = np.bincount(cell_of, minlength=size).reshape(-1, len(methods))
    right = np.bincount(cell_of, known["correct"].to_numpy(dtype=float), size).reshape(-1, len(methods))
    share = np.where(seeds > 0, right / np.maximum(seeds, 1), np.nan)
    # A method alone in a cell has nobody to disagree with.
    spread = np.where((seeds > 0).sum(axis=1) > 1, np.nanstd(share, axis=1), 0.0).round(9)
    chosen = np.argsort(-spread, kind="stable")[:MOST]
    chosen = chosen[spread[chosen] > 0]
    table = known.iloc[rows[chosen]][[*keys, "gold"]].reset_index(drop=True)
    table["disagreement"] = spread[chosen]
    answers = _frequent_answers(known, row_of, chosen)
    for column, method in enumerate(methods):
        table[f"right: {method}"] = share[chosen, column]
        table[f"seeds: {method}"] = seeds[chosen, column]
        table[f"answer: {method}"] = [answers.get((int(row), str(method)), "") for row in chosen]
    return table


def telling(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first `SHOWN` items of each outcome; an item counts once, in the cell where the methods "
    "differ most."""
    if table.empty:
        return table
    once = table.drop_duplicates([key for key in ("setting", "outcome", "id") if key in table])
    return once.groupby("outcome", sort=True, observed=True).head(SHOWN)


def disagreement_records(table: pd.DataFrame) -> list[Record]:
    """Return the number of rows, and the share of seeds with a right answer for each method and item of `telling`."""
    if table.empty:
        return []
    names = [str(column).removeprefix("right: ") for column in table if str(column).startswith("right: ")]
    shares = [
        Record(
            outcome=str(row["outcome"]),
            analysis=ANALYSIS,
            test="share of seeds right",
            groups=(name, *(format_level(row[key]) for key in COLUMNS if key in row and key != "outcome")),
            effect=100 * row[f"right: {name}"],
            n=row[f"seeds: {name}"],
            note=f"percent of n seeds; right is {row['gold']}, the most frequent answer {row[f'answer: {name}']}",
        )
        for row in telling(table).to_dict("records")
        for name in names
        if row[f"seeds: {name}"]
    ]
    return [Record(outcome="", analysis=ANALYSIS, test="items in cells", groups=(), n=len(table)), *shares]


def _rows(known: pd.DataFrame, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each prediction, and the position of the first prediction of each row, in the order of keys."""
    code = np.zeros(len(known), dtype=np.int64)
    for key in keys:
        codes, names = pd.factorize(known[key], sort=True)
        code = code * (len(names) + 1) + codes + 1
    _, first, row_of = np.unique(code, return_index=True, return_inverse=True)
    return row_of, first


def _frequent_answers(known: pd.DataFrame, row_of: np.ndarray, chosen: np.ndarray) -> dict[tuple[int, str], str]:
    """Return the most frequent answer by row and method, the first in the alphabet of several."""
    of_chosen = np.isin(row_of, chosen)
    part = pd.DataFrame(
        {
            "row": row_of[of_chosen],
            "method": known["method"].astype(str).to_numpy()[of_chosen],
            "answer": known["predicted"].astype(str).to_numpy()[of_chosen],
        }
    )
    counts = part.value_counts(["row", "method", "answer"]).reset_index()
    counts = counts.sort_values(["row", "method", "count", "answer"], ascending=[True, True, False, True])
    best = counts.drop_duplicates(["row", "method"])
    return {(int(row), str(m)): str(a) for row, m, a in zip(best["row"], best["method"], best["answer"], strict=True)}
