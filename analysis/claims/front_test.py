"""Tests whether a method is on the Pareto front of score and cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.claims.comparisons import above_floor
from analysis.claims.parts import ANALYSIS, Part, judge_parts, untested_part
from analysis.claims.relations import resolve_methods
from analysis.claims.verdicts import Verdict, undecided
from analysis.records import Record
from analysis.stats.cells import cells, rows
from analysis.stats.conjunctions import directions
from analysis.stats.differences import scoped_values


def front(
    table: pd.DataFrame,
    outcome: str,
    margin: float,
    scope: str,
    alpha: float,
    method: str,
    cost: str,
    less: bool = True,
    dominated: bool = True,
) -> Verdict:
    """Test whether a method is dominated, so that it is not on the Pareto front of F1 and a cost, or is not dominated.

    Another method dominates it if its cost is lower and its F1 higher. Equality cannot be shown, so a method that is
    better in one and about equal in the other counts neither way.

    Args:
        cost: the column of the cost.
        less: whether less of it is better; false for a second benefit.
        dominated: the claim: by at least one other method, or (false) by none.
    """
    kept = above_floor(table, outcome, "method", "f1")
    frame = rows(kept, outcome, cost)
    if frame.empty:
        return undecided(f"the runs have no {cost}")
    kept = kept[kept[cost].notna()]
    own = resolve_methods([method], frame)[method]
    rivals = [str(name) for name in sorted(set(frame["method"])) if name != own]
    judged = [_dominates(kept, outcome, own, rival, cost, less, scope) for rival in rivals]
    if not dominated:
        judged = [Part(p.name, p.fails, p.holds, not p.seen, p.records, p.untested) for p in judged]
    unit = f"other methods that {'' if dominated else 'do not '}dominate {own}"
    return judge_parts(judged, 1 if dominated else "all", alpha, outcome=outcome, unit=unit)


def _dominates(table: pd.DataFrame, outcome: str, own: str, rival: str, cost: str, less: bool, scope: str) -> Part:
    both = table[table["method"].isin([own, rival])]
    sides = []
    for metric in ("f1", cost):
        found = cells(both, outcome, metric)
        if found.methods != tuple(sorted((own, rival))):
            return untested_part(rival, "no block in common")
        values = scoped_values(found, scope)
        at = found.methods.index(rival)
        sides.append(directions(values[at][None] - values[1 - at][None]))
    score, price = sides
    effects = [float(side.errors.effect[0]) for side in sides]
    if any(np.isnan(side.errors.error[0]) and np.isnan(side.constant[0]) for side in sides):
        return untested_part(rival, "fewer than two seeds in common")
    better, worse = (price.below(), price.above()) if less else (price.above(), price.below())
    tests = (("f1", score, float(score.above()[0])), (cost, price, float(better[0])))
    records = tuple(
        Record(
            outcome=outcome,
            analysis=ANALYSIS,
            test=metric,
            groups=(rival, own),
            p=p,
            effect=float(side.errors.effect[0]),
            n=int(side.n[0]),
            note="effect: the first minus the second; p that the first is better",
        )
        for metric, side, p in tests
    )
    fails = min(1.0, 2 * min(float(score.below()[0]), float(worse[0])))
    holds = max(p for _, _, p in tests)
    return Part(rival, holds, fails, seen=effects[0] > 0 and effects[1] * (-1 if less else 1) > 0, records=records)
