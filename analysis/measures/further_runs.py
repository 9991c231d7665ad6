"""Estimates what would decide between the methods that may be the best: how many more seeds or blocks, at what cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.records import NotTestable, Record, find, is_significant
from analysis.stats.best import contenders
from analysis.stats.cells import Cells, points, rows
from analysis.stats.differences import PAIR_TESTS, SAME, THESE, compare

NEEDED, HOURS = "needed to decide", "device-hours to decide"
_POWER, _MOST = 0.8, 10_000


def further_runs(
    table: pd.DataFrame,
    table_cells: Cells,
    records: Sequence[Record],
    *,
    outcome: str,
    analysis: str,
    scope: str,
    margin: float,
    alpha: float = 0.05,
) -> list[Record]:
    """Return for each undecided pair of contenders the number of seeds (or blocks) that would decide it.

    A pair is undecided if it neither differs significantly nor is equivalent within the margin. The number is that at
    which the test of the difference, or of equivalence if the observed difference is less than half the margin, has
    80 % power for the difference observed here; errors shrink with the root of the number, and the critical p stays.
    A last record has the cost in device-hours (effect), by the mean training time of these runs, if it was logged.

    Args:
        records: those of `differences`.
    """
    try:
        compared = compare(table_cells, scope)
    except NotTestable:
        return []
    may_be_best = set(contenders(records, analysis))
    tested = {r.groups: r for r in find(records, analysis=analysis, test=PAIR_TESTS[scope]) if r.p_adjusted is not None}
    equivalent = {r.groups for r in find(records, analysis=analysis, test=SAME) if is_significant(r, alpha)}
    present = table_cells.units["seed"].nunique() if scope == THESE else len(table_cells.means)
    unit = "seeds a cell" if scope == THESE else "blocks of language and ratio"
    needed = []
    for index, (i, j) in enumerate(compared.pairs):
        pair = (table_cells.methods[i], table_cells.methods[j])
        record = tested.get(pair)
        if record is None or not {*pair} <= may_be_best or pair in equivalent or (record.p_adjusted or 0) < alpha:
            continue
        effect, error, df, _ = (float(values[index]) for values in compared.errors)
        n = _sufficient(abs(effect), error, df, present, compared.critical(alpha), alpha, margin)
        goal = f"equivalent within {points(margin)}" if abs(effect) < margin / 2 else "different"
        note = (
            f"n {unit} for this pair to be shown {goal}, power {_POWER:.0%}, if the difference observed is the true one"
        )
        if n is None:
            note = f"more than {_MOST:,} {unit} would be needed to show this pair {goal}"
        needed.append(
            Record(outcome=outcome, analysis=analysis, test=NEEDED, groups=pair, effect=effect, n=n, note=note)
        )
    return [*needed, *_cost(table, table_cells, needed, outcome, analysis, present, unit)]


def _sufficient(
    effect: float, error: float, df: float, present: int, critical: float, alpha: float, margin: float
) -> int | None:
    """Return the smallest sufficient number of seeds or blocks; None if there is none up to `_MOST`."""
    n = np.arange(present + 1, _MOST + 1)
    scale = n / present
    level = critical / 2 if effect >= margin / 2 else alpha
    target = effect if effect >= margin / 2 else margin - effect
    distance = stats.t.isf(level, df * scale) + stats.t.ppf(_POWER, df * scale)
    enough = np.flatnonzero(distance * error / np.sqrt(scale) <= target)
    return int(n[enough[0]]) if len(enough) else None


def _cost(
    table: pd.DataFrame,
    table_cells: Cells,
    needed: Sequence[Record],
    outcome: str,
    analysis: str,
    present: int,
    unit: str,
) -> list[Record]:
    """Return the cost of the largest of the numbers, for the methods of the undecided pairs."""
    numbers = [record.n for record in needed if record.n is not None]
    frame = rows(table, outcome)
    if len(numbers) < len(needed) or not numbers or "train/seconds" not in frame:
        return []
    methods = sorted({name for record in needed for name in record.groups})
    times = frame.drop_duplicates(["method", "adapter"]).groupby("method")["train/seconds"].mean()
    adapters = table_cells.units.groupby("method").size()
    if times.reindex(methods).isna().any():
        return []
    more = max(numbers) - present
    seconds = sum(float(times[name]) * float(adapters[name]) / present * more for name in methods)
    note = f"training time of {more} more {unit} for {len(methods)} methods, at the mean seconds of these runs"
    return [
        Record(
            outcome=outcome,
            analysis=analysis,
            test=HOURS,
            groups=tuple(methods),
            effect=seconds / 3600,
            n=more,
            note=note,
        )
    ]
