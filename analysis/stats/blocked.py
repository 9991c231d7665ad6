"""The omnibus test: methods compared within blocks, tested against the method x block interaction."""

from __future__ import annotations

import pandas as pd

from analysis.records import NotTestable, Record, attempt
from analysis.stats.cells import Cells, cells, pairs
from analysis.stats.linear import Additive, additive, interaction, tukey

F_TEST, PAIR_TEST = "F, method against method x block", "Tukey on method x block"
MEAN = "adjusted mean"


def blocked(table: pd.DataFrame, *, outcome: str, metric: str = "f1", alpha: float = 0.05) -> list[Record]:
    """Compare the methods on cell means over seeds, in blocks of language x ratio.

    The error term is the method x block interaction: a method's lead must be large relative to its variation between
    blocks. If cells are missing, means are adjusted for the blocks (type II sums of squares). Pairs are compared by
    Tukey's test on the same error (studentized range). `metric` may be another column of the table, such as
    `train/seconds`.
    """
    table_cells = cells(table, outcome, metric)
    names, runs = table_cells.methods, table_cells.runs
    head = [
        attempt(lambda: fit_cells(table_cells).test, outcome, "blocked", F_TEST, names, table_cells.note),
        attempt(
            lambda: interaction(runs["value"], list(runs["method"]), list(runs["block"]))[2],
            outcome,
            "blocked",
            "F, method x block against seeds",
            names,
            "method x block interaction: do differences between methods depend on language and ratio?",
        ),
    ]
    try:
        fit = fit_cells(table_cells)
    except NotTestable:
        return head
    means = [
        Record(
            outcome=outcome, analysis="blocked", test=MEAN, groups=(name,), effect=mean, n=_blocks(table_cells, name)
        )
        for name, mean in zip(fit.levels, fit.means, strict=True)
    ]
    return [*head, *means, *(_pair(fit, table_cells, outcome, pair, alpha) for pair in pairs(fit.levels))]


def fit_means(means: pd.DataFrame) -> Additive:
    """Fit method (columns) and block (rows) effects to cell means; NaN marks missing cells.

    Raises:
        NotTestable: as `linear.additive`.
    """
    long = means.rename_axis(index="block", columns="method").reset_index().melt(id_vars="block").dropna()
    return additive(long["value"], list(long["method"]), list(long["block"]))


def fit_cells(table_cells: Cells) -> Additive:
    """Fit method and block effects to cell means.

    Raises:
        NotTestable: as `linear.additive`; the message also says what a block is.
    """
    try:
        return fit_means(table_cells.means)
    except NotTestable as reason:
        hint = f"; a block is a {table_cells.unit}" if len(table_cells.methods) > 1 else ""
        raise NotTestable(f"{reason}{hint}") from None


def _pair(fit: Additive, table_cells: Cells, outcome: str, pair: tuple[str, str], alpha: float) -> Record:
    result, adjusted = tukey(fit, *pair, alpha=alpha)
    shared = int(table_cells.means[list(pair)].notna().all(axis=1).sum())
    return Record(
        outcome=outcome,
        analysis="blocked",
        test=PAIR_TEST,
        groups=pair,
        p_adjusted=adjusted,
        correction="tukey",
        note=f"{shared} blocks in common",
        **result._replace(n=shared)._asdict(),
    )


def _blocks(table_cells: Cells, name: str) -> int:
    return int(table_cells.means[name].notna().sum())
