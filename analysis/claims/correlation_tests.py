"""Tests of correlations of the score with columns of the runs."""

from __future__ import annotations

import pandas as pd

from analysis.claims.comparisons import above_floor
from analysis.claims.verdicts import CONTRADICTED, SUPPORTED, Verdict, format_p, undecided
from analysis.decimals import fixed
from analysis.measures.layer_shares import select_share_columns
from analysis.records import is_significant
from analysis.stats.cells import enumerate_few, rows
from analysis.stats.correlations import correlate
from analysis.stats.multiplicity import holm_records


def correlation(
    table: pd.DataFrame, outcome: str, margin: float, scope: str, alpha: float, columns: list[str], sign: int = 1
) -> Verdict:
    """Test whether F1 rises (sign 1) or falls (-1) with each of the columns, within languages."""
    table = above_floor(table, outcome, "method", "f1")
    records = holm_records([correlate(table, outcome=outcome, column=column, alpha=alpha) for column in columns])
    if without_p := [r for r in records if r.p is None]:
        return undecided(without_p[0].note, records)
    significant = [r for r in records if is_significant(r, alpha)]
    as_claimed, opposite = ([r for r in significant if (r.effect or 0) * side > 0] for side in (sign, -sign))
    listed = enumerate_few(
        [f"{r.groups[0]} r = {fixed(r.effect or 0.0, 2)} ({format_p(r.p_adjusted)})" for r in opposite or records], 6
    )
    text = f"{listed}; n = {records[0].n} runs, Holm over {len(records)} columns"
    if opposite:
        return Verdict(CONTRADICTED, text, tuple(records))
    return Verdict(SUPPORTED, text, tuple(records)) if len(as_claimed) == len(records) else undecided(text, records)


def layer_correlation(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    share: str,
    layers: str | int | None = None,
    depth: list[float] | None = None,
    level: str = "token",
    sign: int = 1,
) -> Verdict:
    """Test whether F1 rises (sign 1) or falls (-1) with the share of a language in each of the selected layers.

    Correlations are within languages; shares come from language probes. Pass either `layers` or `depth`.

    Args:
        share: the language of the share, en or tl.
        layers: the layers, in the form of the option `layers`.
        depth: the range of relative depths, where 1 is the last layer, such as [0.7, 0.9].
        level: token or sequence.
    """
    columns = select_share_columns(rows(table, outcome), level=level, share=share, layers=layers, depth=depth)
    return correlation(table, outcome, margin, scope, alpha, columns=columns, sign=sign)
