"""Tabulates lexical injection (the runs, the word pairs) and summarises each method in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.decimals import fixed
from analysis.measures.layer_shares import analysis_name
from analysis.measures.lexical_injection import (
    AFTER,
    ANALYSIS,
    COSINE,
    GAP,
    OUTPUT,
    PAIR_SETS,
    PHASES,
    POOLED,
    RANDOM,
    ROLES,
    SITES,
    paired_test_name,
    paired_tests,
    retention_metric,
    similarity_metric,
    trained_runs,
)
from analysis.records import Record, find, is_significant
from analysis.runs.methods import format_value, method_order
from analysis.tables.formats import Cell, Table, cell, p_value
from whichlora.data.language_names import language_name

_Means = Mapping[tuple[str, ...], Record]
"""The mean of a column, by (column, method) or (column, method, language)."""
_Tests = Mapping[tuple[str, str, str], Sequence[Record]]
"""Paired tests of single runs, by (test, method, language)."""


def make_tables(injected: pd.DataFrame, records: Sequence[Record]) -> list[Table]:
    """Return for each setting a table of the runs and one of the pairs; the CSV files have every number."""
    runs, tables = trained_runs(injected), []
    settings = sorted(set(runs["setting"]))
    for number, setting in enumerate(settings, 1):
        part = runs[runs["setting"] == setting]
        suffix = f"-{number}" if len(settings) > 1 else ""
        in_setting = find(records, analysis=analysis_name(ANALYSIS, setting, settings))
        means, tests = _means(in_setting), paired_tests(in_setting)
        tables.append(_run_table(part, means, tests, name=f"injection-runs{suffix}", setting=setting))
        tables.append(_pair_table(part, in_setting, means, tests, name=f"injection-pairs{suffix}", setting=setting))
    return tables


def sentences(injected: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    """Describe for each method how control pairs, random pairs and F1 on the untrained task changed."""
    runs, texts = trained_runs(injected), []
    settings = sorted(set(runs["setting"]))
    for setting in settings:
        part, in_setting = (
            runs[runs["setting"] == setting],
            find(records, analysis=analysis_name(ANALYSIS, setting, settings)),
        )
        means, tests = _means(in_setting), paired_tests(in_setting)
        where = f" ({setting})" if len(settings) > 1 else ""
        for method in method_order(part):

            def change(state: str, measure: str, method: str = method, means: _Means = means) -> str:
                ends = (means.get((similarity_metric(w, "control", state, measure), method)) for w in PHASES)
                return " to ".join(_three_decimals(r) for r in ends)

            def gap(state: str, method: str = method, tests: _Tests = tests) -> str:
                of_method = [
                    r for (name, of, _), rs in tests.items() if of == method for r in rs if name == _gap_test(state)
                ]
                up, down = (
                    sum(is_significant(r) and (r.effect or 0.0) * sign > 0 for r in of_method) for sign in (1, -1)
                )
                return f"{change(state, GAP)} (a rise in {up} and a fall in {down} of {len(of_method)} runs, p < .05)"

            parts = [
                f"{method}{where}, control pairs at the block of the loss: cosine of translations "
                f"{change(POOLED, COSINE)}, "
                f"of random pairs {change(POOLED, RANDOM)}; centred gap {gap(POOLED)}, in the output {gap(OUTPUT)}."
            ]
            for role, language in zip(ROLES, (_retained_source(part), "the target language"), strict=True):
                ends = [means.get((retention_metric(w, role), method)) for w in PHASES]
                if None not in ends:
                    task = " and ".join(sorted(set(part["retained"]) - {""})) or "the other task"
                    points = " to ".join(fixed(r.effect or 0.0, 1) for r in ends if r is not None)
                    parts.append(f"F1 on {task} in {language}, not trained: {points}.")
            texts.append(" ".join(parts))
    return texts


def _retained_source(runs: pd.DataFrame) -> str:
    """Return the name of the source language of the task that is not trained."""
    codes = set(runs["retained_source"].dropna()) - {""} if "retained_source" in runs else set()
    names = sorted(map(language_name, codes)) or ["English"]
    return names[0] if len(names) == 1 else "the source language"


def _gap_test(state: str) -> str:
    return paired_test_name("control", state, GAP)


def _run_table(runs: pd.DataFrame, means: _Means, tests: _Tests, *, name: str, setting: str) -> Table:
    body, numbers = [], []
    retention_roles = [role for role in ROLES if any(key[0] == retention_metric(AFTER, role) for key in means)]
    for language, method, of_cell in _cells(runs):
        where = (method, language)
        fields = {key: _values(of_cell, key) for key in ("layers", "pool_layer", "rank")}
        size = means.get(("adapter/trainable_parameters", *where))
        loss = means.get(("train/loss", *where))
        line = [cell(language), cell(method), *(cell(value or "–") for value in fields.values())]
        line += [
            cell("–" if size is None else f"{size.effect:,.0f}"),
            cell(str(len(of_cell))),
            cell(_three_decimals(loss)),
        ]
        for state in SITES:
            line += [_change(means, "control", state, GAP, where), _t_and_p(tests, "control", state, GAP, where)]
        for role in retention_roles:
            ends = (means.get((retention_metric(w, role), *where)) for w in PHASES)
            line.append(cell(" → ".join("–" if r is None else fixed(r.effect or 0.0, 1) for r in ends)))
        body.append(tuple(line))
        numbers += [
            (language, method, *fields.values(), r.test, r.effect, r.statistic, r.n)
            for key, r in means.items()
            if key[1:] == where
        ]
    tasks = sorted(set(runs["retained"]) - {""})
    caption = (
        f"{setting}. The gap is the cosine of translations minus that of random pairs, after subtracting "
        "the mean of each language, "
        "of control pairs, which are not trained: base model → run, at the block of the loss and in the "
        "model's output, and "
        "t and p of the runs' own tests over pairs (Holm over runs). A final loss at its margin of .4: "
        "translations are not separated from other pairs. Means over seeds."
    )
    caption += f" F1 in points on {' and '.join(tasks)}, which is not trained." if tasks and retention_roles else ""
    return Table(
        name=name,
        title="Runs of lexical injection.",
        caption=caption,
        header=(
            *("language", "method", "blocks", "loss after block", "rank", "parameters", "runs", "last loss"),
            *("gap, at the loss", "t; p", "gap, output", "t; p"),
            *(f"F1, {_retained_source(runs) if role == 'en' else 'target'}" for role in retention_roles),
        ),
        rows=tuple(body),
        labels=2,
        numbers=pd.DataFrame(
            numbers,
            columns=["language", "method", "blocks", "loss_after_block", "rank", "metric", "mean", "sd", "runs"],
        ),
    )


def _pair_table(
    runs: pd.DataFrame, records: Sequence[Record], means: _Means, tests: _Tests, *, name: str, setting: str
) -> Table:
    body = []
    for language, method, _ in _cells(runs):
        where = (method, language)
        for pairs in PAIR_SETS:
            for state in SITES:
                line = [cell(language), cell(method), cell(pairs), cell("at the loss" if state == POOLED else state)]
                line += [_change(means, pairs, state, COSINE, where), _change(means, pairs, state, RANDOM, where)]
                line.append(_t_and_p(tests, pairs, state, COSINE, where))
                line += [_change(means, pairs, state, GAP, where), _t_and_p(tests, pairs, state, GAP, where)]
                for measure in ("p1", "mrr"):
                    both = (_change(means, pairs, state, f"{measure}/{way}/centred", where) for way in ("to", "from"))
                    line.append(tuple(part for one in both for part in one))
                    line.append(cell(_three_decimals(means.get((f"floor/{pairs}/{measure}", *where)))))
                body.append(tuple(line))
    numbers = [
        (r.groups[1], r.groups[0], *r.groups[2:], r.test, r.effect, *(r.interval or (None, None)), *_test_values(r))
        for r in records
        if r.test.startswith("paired/")
    ]
    columns = ["language", "method", "seed", "test", "rise", "low", "high", "t", "p", "p_holm", "pairs"]
    return Table(
        name=name,
        title="Pairs before and after.",
        caption=(
            f"{setting}. Base model → run: mean cosine of translations and of random pairs; their gap after "
            "subtracting the mean of each language; share of words whose nearest neighbour is their "
            "translation (P@1) and the mean "
            "reciprocal rank, from English / to English, with chance. For the cosine and the gap, t and p of the "
            "runs' own paired tests (Holm over runs). Means over seeds."
        ),
        header=(
            *("language", "method", "pairs", "place", "translations", "random pairs", "t; p", "gap, centred", "t; p"),
            *("P@1", "chance", "MRR", "chance"),
        ),
        rows=tuple(body),
        labels=4,
        numbers=pd.DataFrame(numbers, columns=columns),
    )


def _test_values(record: Record) -> tuple[float | None, ...]:
    return record.statistic, record.p, record.p_adjusted, record.n


def _cells(runs: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return the (language, method, runs) that exist, sorted by language."""
    order = method_order(runs)
    return [
        (language, method, of_cell)
        for language in sorted(set(runs["language"]))
        for method in order
        if len(of_cell := runs[(runs["language"] == language) & (runs["method"] == method)])
    ]


def _means(records: Sequence[Record]) -> _Means:
    return {(r.test, *r.groups): r for r in records if not r.test.startswith("paired/")}


def _change(means: _Means, pairs: str, state: str, measure: str, where: tuple[str, str]) -> Cell:
    return cell(
        " → ".join(_three_decimals(means.get((similarity_metric(w, pairs, state, measure), *where))) for w in PHASES)
    )


def _t_and_p(tests: _Tests, pairs: str, state: str, measure: str, where: tuple[str, str]) -> Cell:
    """Format t and Holm-adjusted p of a cell's runs, as a range for several runs."""
    results = tests.get((paired_test_name(pairs, state, measure), *where), ())
    if not results:
        return cell("–")
    ts, ps = sorted(r.statistic or 0.0 for r in results), sorted(r.p_adjusted or 0.0 for r in results)
    both = ((fixed(ts[0], 1), fixed(ts[-1], 1)), (p_value(ps[0]), p_value(ps[-1])))
    return cell("; ".join(" to ".join(dict.fromkeys(ends)) for ends in both))


def _values(rows: pd.DataFrame, key: str) -> str:
    return "; ".join(dict.fromkeys(format_value(key, value) for value in rows[key]))


def _three_decimals(record: Record | None) -> str:
    return "–" if record is None or record.effect is None else fixed(record.effect, 3)
