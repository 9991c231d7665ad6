"""Formats the items on which the methods disagree: some for the page, all as a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from analysis.decimals import fixed
from analysis.measures.disagreements import MOST, telling
from analysis.naming import Names
from analysis.stats.cells import format_level
from whichlora import csv_text


class DisputedItem(NamedTuple):
    """An item in a cell of the design as text, with the answers of each method."""

    item: str
    outcome: str
    language: str
    ratio: str
    gold: str
    answers: tuple[str, ...]


class DisputedItems(NamedTuple):
    """What the page shows of them.

    Attributes:
        file: name of the CSV file.
        total: its number of rows.
        cut: whether the file lacks rows because there are too many.
    """

    methods: tuple[str, ...]
    rows: tuple[DisputedItem, ...]
    file: str
    total: int
    cut: bool


def disputed_items(table: pd.DataFrame, file: str, names: Names) -> DisputedItems:
    """Return the most telling rows of `disagreements`."""
    methods = tuple(str(c).removeprefix("right: ") for c in table if str(c).startswith("right: "))
    rows = tuple(
        DisputedItem(
            item=str(row["id"]),
            outcome=names.short(str(row["outcome"])),
            language=format_level(row["language"]),
            ratio=f"{100 * row['tl_ratio']:g} %",
            gold=_short(str(row["gold"])),
            answers=tuple(_answer(row, method) for method in methods),
        )
        for row in telling(table).to_dict("records")
    )
    return DisputedItems(methods, rows, file, len(table), len(table) == MOST)


def to_csv(table: pd.DataFrame) -> str:
    """Return all rows as CSV that no spreadsheet takes for formulas."""
    texts = [c for c in map(str, table) if c in ("setting", "language", "id", "gold") or c.startswith("answer: ")]
    return csv_text.to_csv(table.astype(dict.fromkeys(texts, str)).rename(columns={"id": "item"}))


def _answer(row: Mapping[Any, Any], method: str) -> str:
    """Return "3/3" right answers of the seeds, with the most frequent answer where it is wrong."""
    seeds, share = int(row[f"seeds: {method}"]), float(row[f"right: {method}"])
    if not seeds:
        return ""
    right = seeds * share
    text = f"{right:.0f}/{seeds}" if abs(right - round(right)) < 1e-6 else f"{fixed(share, 2)} of 1"
    answer = str(row[f"answer: {method}"])
    return text if answer == row["gold"] else f"{text} {_short(answer) or 'no answer'}"


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
