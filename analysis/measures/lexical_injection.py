"""Lexical injection: what became of the similarity of words and translations, and of a task that was not trained.

A rise of the cosine alone is no alignment, it also comes when all words grow alike: so random pairs, the gap to them
and retrieval stand beside it, before and after, with the paired tests that the runs logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.measures import scores
from analysis.measures.layer_shares import analysis_name
from analysis.measures.summaries import summarise
from analysis.records import Record
from analysis.runs.methods import UNTRAINED
from analysis.stats.blocked import F_TEST, blocked
from analysis.stats.groupings import groupings
from analysis.stats.multiplicity import holm_records

ANALYSIS, FORGOTTEN, RETAINED = "injection", "injection, forgotten", "injection, retained F1"
PAIR_SETS = ("trained", "control")
POOLED, OUTPUT = SITES = ("pooled", "output")
"""Where the loss is, and the model's output: as `whichlora.pooling` calls them, which needs torch."""
COSINE, RANDOM, GAP = SIMILARITIES = ("cosine/translation/raw", "cosine/random/raw", "cosine/gap/centred")
RETRIEVAL = ("p1/to/centred", "p1/from/centred", "mrr/to/centred", "mrr/from/centred")
TESTED = (COSINE, GAP)
BEFORE, AFTER = PHASES = ("base", "test")
ROLES = ("en", "tl")
RISE_ANALYSES = {POOLED: "injection, rise of the gap at the loss", OUTPUT: "injection, rise of the gap of the output"}
"""What the comparisons of methods by the rise on control pairs, in hundredths of a cosine, are called."""


def similarity_metric(when: str, pairs: str, place: str, measure: str) -> str:
    """Return the metric of a measure, before or after the training."""
    return f"{when}/{pairs}/{place}/{measure}"


def paired_test_name(pairs: str, place: str, measure: str) -> str:
    """Return what a run's own test of the rise by pair is called; without the statistic also the metric's beginning."""
    return f"paired/{pairs}/{place}/{measure}"


def retention_metric(when: str, role: str) -> str:
    """Return the metric of F1 on the task that was not trained."""
    return f"{when}/retention/{role}/f1"


_COLUMNS = (
    *(
        similarity_metric(w, s, p, m)
        for s in PAIR_SETS
        for p in SITES
        for m in (*SIMILARITIES, *RETRIEVAL)
        for w in PHASES
    ),
    *(f"floor/{s}/{m}" for s in PAIR_SETS for m in ("p1", "mrr")),
    *(retention_metric(w, role) for role in ROLES for w in PHASES),
    *("train/loss", "adapter/trainable_parameters"),
)


def trained_runs(injected: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that trained something: of the base model there is only a before."""
    return injected[injected["variant"] != UNTRAINED] if len(injected) else injected


def injection_records(injected: pd.DataFrame) -> list[Record]:
    """Return means over runs by method and language, and by method; each run's tests by pair; methods compared."""
    runs = trained_runs(injected)
    settings = sorted(set(runs["setting"]))
    found: list[Record] = []
    for setting in settings:
        own, analysis = runs[runs["setting"] == setting], analysis_name(ANALYSIS, setting, settings)
        found += _described(own, analysis)
        for place in SITES:
            for pairs in PAIR_SETS:
                for measure in TESTED:
                    found += _by_pair(own, analysis, pairs, place, measure)
    return [*found, *_compared(runs)] if len(runs) else []


def _described(runs: pd.DataFrame, analysis: str) -> list[Record]:
    groups = [
        *((tuple(map(str, key)), own) for key, own in runs.groupby(["method", "language"], sort=True)),
        *(((str(method),), own) for method, own in runs.groupby("method", sort=True)),
    ]
    note = "mean over n runs, the statistic is the standard deviation"
    return [
        Record(
            outcome="",
            analysis=analysis,
            test=column,
            groups=key,
            effect=float(values.mean()),
            statistic=float(values.std()),
            n=len(values),
            note=f"{note}, points" if column.endswith("f1") else note,
        )
        for key, own in groups
        for column in _COLUMNS
        if column in own and len(values := scaled(own, column))
    ]


def _by_pair(runs: pd.DataFrame, analysis: str, pairs: str, place: str, measure: str) -> list[Record]:
    """Return the paired t-test of each run, adjusted for all of these runs."""
    name = paired_test_name(pairs, place, measure)
    if f"{name}/t" not in runs:
        return []
    found = []
    for row in runs[runs[f"{name}/t"].notna()].to_dict("records"):
        chance = float(row.get(f"floor/{pairs}/p1") or "nan")
        n = round(1 / chance) if chance > 0 else None
        found.append(
            Record(
                outcome="",
                analysis=analysis,
                test=name,
                groups=(row["method"], row["language"], f"seed {row['seed']}"),
                statistic=row[f"{name}/t"],
                df=None if n is None else (n - 1,),
                p=row[f"{name}/p"],
                effect=row[f"{name}/difference"],
                interval=(row[f"{name}/low"], row[f"{name}/high"]),
                n=n,
                note="rise by pair, paired t-test of the run over n pairs; Holm over runs",
            )
        )
    return holm_records(found)


def _compared(runs: pd.DataFrame) -> list[Record]:
    """Compare methods by what they do to control pairs and to the task that is not trained, in blocks of language."""
    found: list[Record] = []
    for place in (OUTPUT, POOLED):
        # What two blocks of a model hold is not on one scale; its output is the same place for all.
        unlike = place == POOLED and runs.groupby("setting")["pool_layer"].nunique().max() > 1
        rise = f"{paired_test_name('control', place, GAP)}/difference"
        scaled = runs.assign(rise=100 * runs[rise]) if rise in runs else runs
        found += _methods(scaled, "rise", RISE_ANALYSES[place], "", unlike=unlike)
    for role in ROLES:
        metric = retention_metric(AFTER, role)
        found += _methods(runs, metric, RETAINED, role)
        if metric in runs and runs[metric].notna().any():
            lost = scores.forgetting(runs, before=retention_metric(BEFORE, role), after=metric)
            note = "points below the base model"
            found += summarise(lost, analysis=FORGOTTEN, outcome=role, by=("method",), note=note)
    return found


def _methods(runs: pd.DataFrame, metric: str, analysis: str, outcome: str, *, unlike: bool = False) -> list[Record]:
    if metric not in runs or runs[metric].isna().all():
        return []
    if unlike:
        note = "no test: the loss is on several blocks, whose similarities are not comparable; the output's are"
        return [Record(outcome=outcome, analysis=analysis, test=F_TEST, groups=(), note=note)]
    primary = blocked(runs, outcome="tl", metric=metric)
    made = [*primary, *groupings(primary, outcome="tl")]
    return [replace(record, analysis=analysis, outcome=outcome) for record in made]


def scaled(rows: pd.DataFrame, column: str) -> pd.Series[float]:
    """Return what is known of a column, F1 in points."""
    return (100 if column.endswith("f1") else 1) * rows[column].dropna().astype(float)


def paired_tests(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Return the tests by pair of the runs of a setting, by name, method and language."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.test.startswith("paired/"):
            found.setdefault((record.test, record.groups[0], record.groups[1]), []).append(record)
    return found
