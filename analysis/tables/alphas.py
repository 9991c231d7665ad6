"""Builds the table of the best alpha at each rank, chosen by validation, of methods that were run with several."""

from __future__ import annotations

import pandas as pd

from analysis.naming import DEFAULT_HEADLINE, names_of
from analysis.records import Record, described
from analysis.runs.methods import format_value
from analysis.tables.formats import BEST, Cell, Part, Table, cell, mean_and_sd

_CELL = ["language", "tl_ratio", "seed"]
_KEYS = ["variant", "arm", "rank"]


def alpha_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate the validation F1 of each alpha at a rank, in points; None if no method has several in a cell.

    A run's F1 is the mean of its validation scores in both languages; it is the mean over the cells and seeds that
    every alpha of that method and rank has.
    """
    headline = str(rows["headline"].iloc[0]) if "headline" in rows else DEFAULT_HEADLINE
    columns = [key for role in ("en", "tl") if (key := f"validation/{role}/{headline}") in rows]
    if not columns or not {*_KEYS, "alpha"} <= set(rows):
        return None, []
    runs = rows[(rows["outcome"] == "tl") & rows["alpha"].notna() & rows["rank"].notna()]
    runs = runs.assign(points=100 * runs[columns].astype(float).mean(axis=1, skipna=False)).dropna(subset="points")
    alphas: list[float] = sorted(set(runs["alpha"].astype(float).tolist()))
    body, numbers, records = [], [], []
    for values, found in runs.groupby(_KEYS, sort=True):
        variant, arm, rank = (format_value(field, value) for field, value in zip(_KEYS, values, strict=True))
        scores = found.pivot_table(index=_CELL, columns="alpha", values="points").dropna()
        if scores.shape[1] < 2 or scores.empty:
            continue
        method = str(found["method"].iloc[0]).partition(",")[0]
        means: dict[float, float] = dict(
            zip(scores.columns.astype(float).tolist(), scores.mean().tolist(), strict=True)
        )
        best = max(means, key=lambda alpha: means[alpha])
        line: list[Cell] = [cell(method), cell(rank)]
        for alpha in alphas:
            if alpha not in means:
                line.append(cell("–"))
                continue
            mean, sd = means[alpha], float(scores[alpha].std())
            line.append((Part(mean_and_sd(mean, sd, 1), BEST if alpha == best else 0),))
            numbers.append((setting, method, variant, arm, rank, alpha, mean, sd, len(scores), alpha == best))
            where = (method, setting, f"rank {rank}", f"alpha {alpha:g}")
            note = "points, over cells and seeds"
            records.append(described("", "validation F1", where, mean, sd, len(scores), note))
        body.append((*line, cell(format_value("alpha", best))))
    if not body:
        return None, []
    table = Table(
        name=name,
        title="Best alpha by rank.",
        caption=f"{setting}. Validation {names_of(rows).score} in points, mean of both languages ± standard deviation "
        "over languages, ratios and seeds; the best alpha of a method and rank is bold. Test scores play no part.",
        header=("method", "rank", *(f"alpha {alpha:g}" for alpha in alphas), "best"),
        rows=tuple(body),
        labels=2,
        numbers=pd.DataFrame(
            numbers,
            columns=["setting", "method", "variant", "arm", "rank", "alpha", "mean", "sd", "runs", "best"],
        ),
    )
    return table, records
