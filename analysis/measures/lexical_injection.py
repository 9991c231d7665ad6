"""Analyses lexical injection: similarity of words and their translations, and F1 on a task that was not trained.

A higher cosine alone does not show alignment: it also rises if all words become more similar. Therefore random pairs,
the gap to them and retrieval are reported too, before and after training, with the paired tests that the runs logged.
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
from analysis.stats.cells import in_points
from analysis.stats.groupings import groupings
from analysis.stats.multiplicity import holm_records

ANALYSIS, FORGOTTEN, RETAINED = "injection", "injection, forgotten", "injection, retained F1"
PAIR_SETS = ("trained", "control")
POOLED, OUTPUT = SITES = ("pooled", "output")
"""The site of the loss and the model output, named as in the runs' metrics (repeated here to avoid importing torch)."""
COSINE, RANDOM, GAP = SIMILARITIES = ("cosine/translation/raw", "cosine/random/raw", "cosine/gap/centred")
RETRIEVAL = ("p1/to/centred", "p1/from/centred", "mrr/to/centred", "mrr/from/centred")
TESTED = (COSINE, GAP)
BEFORE, AFTER = PHASES = ("base", "test")
ROLES = ("en", "tl")
RISE_ANALYSES = {POOLED: "injection, rise of the gap at the loss", OUTPUT: "injection, rise of the gap of the output"}
"""Names of the analyses that compare methods by the rise on control pairs, in hundredths of a cosine."""


def similarity_metric(phase: str, pairs: str, site: str, measure: str) -> str:
    """Return the metric name of a measure, before or after training."""
    return f"{phase}/{pairs}/{site}/{measure}"


def paired_test_name(pairs: str, site: str, measure: str) -> str:
    """Return the name of a run's paired test of the rise; it is also the prefix of the test's metrics."""
    return f"paired/{pairs}/{site}/{measure}"


def retention_metric(phase: str, role: str) -> str:
    """Return the metric name of F1 on the task that was not trained."""
    return f"{phase}/retention/{role}/f1"


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
    """Return the runs of trained methods; the base model has values before training only."""
    return injected[injected["variant"] != UNTRAINED] if len(injected) else injected


def injection_records(injected: pd.DataFrame) -> list[Record]:
    """Return means over runs (by method and language, and by method), paired tests of runs, and method comparisons."""
    runs = trained_runs(injected)
    settings = sorted(set(runs["setting"]))
    records: list[Record] = []
    for setting in settings:
        in_setting, analysis = runs[runs["setting"] == setting], analysis_name(ANALYSIS, setting, settings)
        records += _mean_records(in_setting, analysis)
        for site in SITES:
            for pairs in PAIR_SETS:
                for measure in TESTED:
                    records += _paired_records(in_setting, analysis, pairs, site, measure)
    return [*records, *_comparison_records(runs)] if len(runs) else []


def _mean_records(runs: pd.DataFrame, analysis: str) -> list[Record]:
    groups = [
        *((tuple(map(str, key)), rows) for key, rows in runs.groupby(["method", "language"], sort=True)),
        *(((str(method),), rows) for method, rows in runs.groupby("method", sort=True)),
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
            note=f"{note}, points" if in_points(column) else note,
        )
        for key, rows in groups
        for column in _COLUMNS
        if column in rows and len(values := known_values(rows, column))
    ]


def _paired_records(runs: pd.DataFrame, analysis: str, pairs: str, site: str, measure: str) -> list[Record]:
    """Return the paired t test of each run, adjusted by Holm over the runs."""
    name = paired_test_name(pairs, site, measure)
    if f"{name}/t" not in runs:
        return []
    records = []
    for row in runs[runs[f"{name}/t"].notna()].to_dict("records"):
        chance = float(row.get(f"floor/{pairs}/p1") or "nan")
        n = round(1 / chance) if chance > 0 else None
        records.append(
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
    return holm_records(records)


def _comparison_records(runs: pd.DataFrame) -> list[Record]:
    """Compare methods by the rise on control pairs and by F1 on the task that is not trained, in blocks of language."""
    records: list[Record] = []
    for site in (OUTPUT, POOLED):
        # Similarities at different blocks are not on one scale; the output is the same site in all runs.
        incomparable = site == POOLED and runs.groupby("setting")["pool_layer"].nunique().max() > 1
        column = f"{paired_test_name('control', site, GAP)}/difference"
        with_rise = runs.assign(rise=100 * runs[column]) if column in runs else runs
        records += _compare_methods(with_rise, "rise", RISE_ANALYSES[site], "", incomparable=incomparable)
    for role in ROLES:
        metric = retention_metric(AFTER, role)
        records += _compare_methods(runs, metric, RETAINED, role)
        if metric in runs and runs[metric].notna().any():
            losses = scores.forgetting(runs, before=retention_metric(BEFORE, role), after=metric)
            note = "points below the base model"
            records += summarise(losses, analysis=FORGOTTEN, outcome=role, by=("method",), note=note)
    return records


def _compare_methods(
    runs: pd.DataFrame, metric: str, analysis: str, outcome: str, *, incomparable: bool = False
) -> list[Record]:
    if metric not in runs or runs[metric].isna().all():
        return []
    if incomparable:
        note = "no test: the loss is on several blocks, whose similarities are not comparable; the output's are"
        return [Record(outcome=outcome, analysis=analysis, test=F_TEST, groups=(), note=note)]
    primary = blocked(runs, outcome="tl", metric=metric)
    records = [*primary, *groupings(primary, outcome="tl")]
    return [replace(record, analysis=analysis, outcome=outcome) for record in records]


def known_values(rows: pd.DataFrame, column: str) -> pd.Series[float]:
    """Return the values of a column without missing ones, F1 in points."""
    return (100 if in_points(column) else 1) * rows[column].dropna().astype(float)


def paired_tests(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Return the paired tests of the runs of a setting, by name, method and language."""
    tests: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.test.startswith("paired/"):
            tests.setdefault((record.test, record.groups[0], record.groups[1]), []).append(record)
    return tests
