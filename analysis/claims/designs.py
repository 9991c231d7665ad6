"""What the design of a claim needs, and what the runs at hand lack of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import pandas as pd
from pydantic import Field

from analysis.claims.selection import Conditions, select
from analysis.columns import CONDITIONS
from analysis.stats.cells import enumerate_few, format_level
from analysis.stats.contrasts import spread_english
from whichlora.yaml_files import Section

Needs = Mapping[str, int]
"""How many values of each column a complete design has, each of them with all the values of the next columns."""
_PLURALS = {
    **{"tl_ratio": "ratios", "train_size": "numbers of items", "layers": "selections of layers"},
    **{"target_modules": "selections of modules", "variant_options": "sets of options"},
    **{"batch_size": "batch sizes", "learning_rate": "learning rates"},
}


class Design(Section):
    """The schema of a design: the runs that test claims. `paper.yaml` documents the fields."""

    runs: Annotated[str, Field(min_length=1)]
    where: dict[str, str | int | float] = Field(default_factory=dict)
    either: list[dict[str, str | int | float]] = Field(default_factory=list)
    without: dict[str, str | int | float] = Field(default_factory=dict)
    best_of: list[str] = Field(default_factory=list)
    needs: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    same: list[str] = Field(default_factory=list)
    tables: dict[str, int] = Field(default_factory=dict)


def lacking(runs: pd.DataFrame, needs: Needs, either: Sequence[Conditions] = ()) -> str:
    """Return what the runs lack of a complete design; "" if nothing.

    Args:
        either: the conditions of the design's methods; each of these needs everything, runs at least.
    """
    if missing := [column for column in needs if column not in runs]:
        return f"the runs have no {missing[0]}"
    runs = spread_english(runs)
    for conditions in either or ({},):
        if text := _shortage(select(runs, conditions), tuple(needs.items())):
            who = ", ".join(f"{column} {value}" for column, value in conditions.items())
            return f"the design is incomplete: {who}{' has ' if who else ''}{text}"
    return ""


def varying(runs: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return which of the columns, that a design holds constant, varies within a setting of the runs; "" if none."""
    setting = [column for column in CONDITIONS if column in runs]
    for column in columns:
        if column not in runs:
            continue
        groups = runs.groupby(setting, dropna=False, observed=True)[column] if setting else [((), runs[column])]
        for _, values in groups:
            if len(found := sorted({format_level(value) for value in values})) > 1:
                return f"the design has one {column.replace('_', ' ')}, and the runs have {enumerate_few(found)}"
    return ""


def _shortage(runs: pd.DataFrame, needs: Sequence[tuple[str, int]]) -> str:
    if not needs:
        return "" if len(runs) else "no runs"
    (column, number), *rest = needs
    complete = [value for value, part in runs.groupby(column, observed=True) if not _shortage(part, rest)]
    if len(complete) >= number:
        return ""
    each = "".join(f" with {count} {_plural(name)}" for name, count in rest)
    return f"{len(complete)} of {number} {_plural(column)}{each}{' each' * bool(each)}"


def _plural(column: str) -> str:
    return _PLURALS.get(column, f"{column.replace('_', ' ')}s")
