"""The general form of the primary analysis: a linear mixed model of the scores, by REML, in both scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.records import NotTestable, Record
from analysis.stats.cells import cells, enumerate_few
from analysis.stats.differences import PAIR_TESTS, SCOPES, THESE, pair_reason
from analysis.stats.mixed.kenward_roger import TOO_FEW
from analysis.stats.mixed.method_model import Compared, MethodModel
from analysis.stats.mixed.reml import RESIDUAL

MIXED = "mixed model"
WHERE = {THESE: "these blocks", "like-these": "blocks like these"}
F_TESTS = {scope: f"F, Kenward-Roger, on {where}" for scope, where in WHERE.items()}
DEVIATIONS = {scope: f"SD of {{}}, on {where}" for scope, where in WHERE.items()}
LIKELIHOODS = {scope: f"restricted log likelihood, on {where}" for scope, where in WHERE.items()}


def mixed_model(table: pd.DataFrame, *, outcome: str, metric: str = "f1", alpha: float = 0.05) -> list[Record]:
    """Compare the methods by a linear mixed model of all scores, in both scopes (see `MethodModel`).

    Returns, for each scope, the F test of all methods with the degrees of freedom of Kenward and Roger, the standard
    deviation of each random effect, the restricted log likelihood, and for each pair the difference with an interval
    that holds for all pairs at once. If the design is too small, the record of the F test says why.
    """
    table_cells = cells(table, outcome, metric)
    records: list[Record] = []
    for scope in SCOPES:
        try:
            model = MethodModel(table_cells.scores, scope)
            compared = model.compare(table_cells.scores["value"])
        except NotTestable as reason:
            note = f"no test: {reason}"
            records.append(_record(outcome, F_TESTS[scope], table_cells.methods, note=note))
            continue
        records += _fit_records(outcome, scope, model.methods, compared)
        records += _pair_records(outcome, scope, model.methods, compared, alpha)
    return records


def _fit_records(outcome: str, scope: str, methods: Sequence[str], compared: Compared) -> list[Record]:
    fit = compared.fit
    if isinstance(compared.test, NotTestable):
        test = _record(outcome, F_TESTS[scope], methods, note=f"no test: {compared.test}")
    else:
        note = "n scores; F is scaled and has the degrees of freedom of Kenward and Roger"
        if scope == THESE:
            note += "; over the blocks that all methods have"
        test = _record(outcome, F_TESTS[scope], methods, note=note, **compared.test._asdict())
    likelihood = _record(outcome, LIKELIHOODS[scope], methods, statistic=fit.log_likelihood, n=fit.n, note="n scores")
    deviations = [
        _record(
            outcome,
            DEVIATIONS[scope].format(name),
            (),
            effect=np.sqrt(variance),
            n=fit.levels[name],
            note=_component_note(name, fit.singular, fit.confounded),
        )
        for name, variance in fit.variances.items()
    ]
    return [test, *deviations, likelihood]


def _component_note(name: str, singular: Sequence[str], confounded: Sequence[str]) -> str:
    note = "effect is the standard deviation in points, n levels"
    if name in singular:
        note += "; estimated as zero, at the boundary"
    if name == RESIDUAL and confounded:
        note += f"; the design does not separate {enumerate_few(confounded)} from the other components"
    return note


def _pair_records(outcome: str, scope: str, methods: Sequence[str], compared: Compared, alpha: float) -> list[Record]:
    comparison = compared.comparison
    critical = comparison.critical(alpha)
    error = "seeds and adapters within blocks" if scope == THESE else "method x block, seeds and adapters"
    note = f"mixed model; error: {error}; n blocks; interval of {1 - alpha:.0%} for all pairs at once"
    records = []
    for index, (i, j) in enumerate(comparison.pairs):
        pair = (methods[i], methods[j])
        effect, se, df, p = (float(values[index]) for values in comparison.errors)
        n = int(comparison.n[index])
        if not np.isfinite(p):
            why = TOO_FEW if np.isfinite(df) else pair_reason(n, scope)
            records.append(_record(outcome, PAIR_TESTS[scope], pair, note=f"no test: {why}"))
            continue
        half = float(stats.t.isf(critical / 2, df)) * se
        records.append(
            _record(
                outcome,
                PAIR_TESTS[scope],
                pair,
                statistic=effect / se,
                df=(df,),
                p=p,
                p_adjusted=comparison.adjusted(p),
                correction="max t",
                effect=effect,
                interval=(effect - half, effect + half),
                n=n,
                note=note,
            )
        )
    return records


def _record(outcome: str, test: str, groups: Sequence[str], **fields: Any) -> Record:
    return Record(outcome=outcome, analysis=MIXED, test=test, groups=tuple(groups), **fields)
