"""Selects the runs that a claim is about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from analysis.columns import CONDITIONS, SETTINGS
from analysis.naming import DEFAULT_SOURCE
from analysis.records import NotTestable
from analysis.runs.methods import format_value
from analysis.stats.contrasts import same_level

Conditions = Mapping[str, str | int | float]
"""Patterns by column; several are separated by "|"."""


def select(
    table: pd.DataFrame, where: Conditions, either: Sequence[Conditions] = (), without: Conditions | None = None
) -> pd.DataFrame:
    """Return the rows that match all conditions of `where` and, if there are any, all of one entry of `either`.

    Rows that match all conditions of `without` are left out.

    The source language is English where a table does not say it. A source-language result that several languages share
    (language "") belongs to each of them. If a column is missing, no row matches.
    """
    if "source_language" not in table:
        table = table.assign(source_language=DEFAULT_SOURCE)
    chosen = _matches(table, where)
    if either:
        chosen &= pd.concat([_matches(table, conditions) for conditions in either], axis=1).any(axis=1)
    if without:
        chosen &= ~_matches(table, without)
    return table[chosen]


def best_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the runs with the best values of some columns: those with the highest mean validation score.

    The values are chosen for each variant, arm and setting of the other columns, over the languages, ratios and seeds,
    as alpha at each rank in Table 12 of the paper. The columns are emptied, so that runs may differ in them.

    Raises:
        NotTestable: there is something to choose and no validation score.
    """
    columns = [column for column in columns if column in table]
    if table.empty or not columns:
        return table
    held = [c for c in ("variant", "arm", *SETTINGS, *CONDITIONS) if c in table and c not in columns]
    group = table.groupby(held, dropna=False, sort=False).ngroup()
    texts = table[columns].astype(str).agg("; ".join, axis=1)
    validated = _validation(table)
    chosen = pd.Series(False, table.index)
    for _, values in texts.groupby(group, sort=False):
        choices = sorted(set(values))
        means = validated[values.index].groupby(values).mean()
        if len(choices) > 1 and means.isna().any():
            raise NotTestable(f"the best {', '.join(columns)} cannot be chosen: runs have no validation score")
        best = max(choices, key=lambda choice: means[choice]) if len(choices) > 1 else choices[0]
        chosen[values.index] = values == best
    emptied = {column: math.nan if pd.api.types.is_numeric_dtype(table[column]) else "" for column in columns}
    return table[chosen].assign(method=_names_without(table[chosen], columns), **emptied)


def _names_without(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Return the names of the methods without the values of some columns, in which one method's runs may differ now."""
    names = table["method"].astype(str)
    for column in columns:
        values = table[column].map(partial(format_value, column)).replace("", "none")
        details = ", " + column.replace("_", " ") + " " + values
        names = pd.Series([n.replace(d, "") for n, d in zip(names, details, strict=True)], table.index, dtype=str)
    return names


def _validation(table: pd.DataFrame) -> pd.Series[float]:
    """Return the mean validation score over the languages in which a run was validated."""
    columns = [c for c in map(str, table) if c.startswith("validation/") and c.endswith(("/en/f1", "/tl/f1"))]
    return table[columns].mean(axis=1) if columns else pd.Series(math.nan, table.index)


def _matches(table: pd.DataFrame, conditions: Conditions) -> pd.Series[bool]:
    chosen = pd.Series(True, table.index)
    for column, pattern in conditions.items():
        if column not in table:
            return pd.Series(False, table.index)
        texts = table[column].map(str)
        fits = {text: same_level(column, text, str(pattern)) for text in texts.unique()}
        matching = texts.map(fits).astype(bool)
        if column == "language" and "outcome" in table:
            matching |= (table["outcome"] == "en") & (texts == "")
        chosen &= matching
    return chosen
