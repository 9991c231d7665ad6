"""Finds the number of a table in "Which LoRA?" (arXiv 2606.10428), if its runs are all those of the paper's design."""

from __future__ import annotations

import pandas as pd

from analysis.claims.claims import paper_designs
from analysis.claims.designs import Design, lacking
from analysis.claims.selection import select
from analysis.columns import CONDITIONS
from analysis.runs.methods import UNTRAINED


def numbered(title: str, rows: pd.DataFrame, kind: str) -> str:
    """Return the title of a table with the paper's number, if it has one.

    Args:
        title: with a final full stop.
        rows: the results of the table's setting.
        kind: f1, f1-means, parameters, efficiency, hyperparameters or hyperparameters-alpha.
    """
    trained = rows[rows["variant"] != UNTRAINED]
    trained = trained.assign(model=[str(model).partition(" ")[0] for model in trained["model"]])  # without a digest
    for design in paper_designs().values():
        if kind in design.tables and _is_of(design, trained):
            return f"{title.removesuffix('.')} (Table {design.tables[kind]} of “Which LoRA?”)."
    return title


def _is_of(design: Design, rows: pd.DataFrame) -> bool:
    """Return whether rows of one setting are of a design, all of them, and lack nothing of it in this setting."""
    needs = {column: number for column, number in design.needs.items() if column not in CONDITIONS}
    chosen = select(rows, design.where, design.either, design.without)
    return len(rows) > 0 and len(chosen) == len(rows) and not lacking(rows, needs, design.either)
