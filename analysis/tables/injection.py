"""What the page says of lexical injection: a table of the runs, one of the pairs, and a sentence for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

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
from analysis.records import Record, find
from analysis.runs.methods import format_value, method_order
from analysis.tables.formats import Cell, Table, cell, p_value

_Means = Mapping[tuple[str, ...], Record]
"""The mean of a column by (column, method) or (column, method, language)."""
_Tests = Mapping[tuple[str, str, str], Sequence[Record]]


def make_tables(injected: pd.DataFrame, records: Sequence[Record]) -> list[Table]:
    """Return for each setting a table of the runs and one of the pairs; the CSV files have every number."""
    runs, made = trained_runs(injected), []
    settings = sorted(set(runs["setting"]))
    for number, setting in enumerate(settings, 1):
        own = runs[runs["setting"] == setting]
        end = f"-{number}" if len(settings) > 1 else ""
        found = find(records, analysis=analysis_name(ANALYSIS, setting, settings))
        means, tests = _means(found), paired_tests(found)
        made.append(_run_table(own, means, tests, name=f"injection-runs{end}", setting=setting))
        made.append(_pair_table(own, found, means, tests, name=f"injection-pairs{end}", setting=setting))
    return made


def sentences(injected: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    """Say of each method what became of control pairs, beside random ones, and of the task that was not trained."""
    runs, told = trained_runs(injected), []
    settings = sorted(set(runs["setting"]))
    for setting in settings:
        own, found = (
            runs[runs["setting"] == setting],
            find(records, analysis=analysis_name(ANALYSIS, setting, settings)),
        )
        means, tests = _means(found), paired_tests(found)
        where = f" ({setting})" if len(settings) > 1 else ""
        for method in method_order(own):

            def change(place: str, measure: str, method: str = method, means: _Means = means) -> str:
                ends = (means.get((similarity_metric(w, "control", place, measure), method)) for w in PHASES)
                return " to ".join(_cosine(r) for r in ends)

            def gap(place: str, method: str = method, tests: _Tests = tests) -> str:
                mine = [
                    r for (name, of, _), rs in tests.items() if of == method for r in rs if name == _gap_test(place)
                ]
                up, down = (sum(_apart(r) and (r.effect or 0.0) * sign > 0 for r in mine) for sign in (1, -1))
                return f"{change(place, GAP)} (a rise in {up} and a fall in {down} of {len(mine)} runs, p < .05)"

            parts = [
                f"{method}{where}, control pairs where the loss is: cosine of translations {change(POOLED, COSINE)}, "
                f"of random pairs {change(POOLED, RANDOM)}; centred gap {gap(POOLED)}, in the output {gap(OUTPUT)}."
            ]
            for role, said in zip(ROLES, ("English", "the target language"), strict=True):
                ends = [means.get((retention_metric(w, role), method)) for w in PHASES]
                if None not in ends:
                    task = " and ".join(sorted(set(own["retained"]) - {""})) or "the other task"
                    points = " to ".join(f"{r.effect:.1f}" for r in ends if r is not None)
                    parts.append(f"F1 on {task} in {said}, not trained: {points}.")
            told.append(" ".join(parts))
    return told


def _gap_test(place: str) -> str:
    return paired_test_name("control", place, GAP)


def _run_table(runs: pd.DataFrame, means: _Means, tests: _Tests, *, name: str, setting: str) -> Table:
    body, numbers = [], []
    kept = [role for role in ROLES if any(key[0] == retention_metric(AFTER, role) for key in means)]
    for language, method, own in _cells(runs):
        where = (method, language)
        first = {key: _values(own, key) for key in ("layers", "pool_layer", "rank")}
        size = means.get(("adapter/trainable_parameters", *where))
        loss = means.get(("train/loss", *where))
        line = [cell(language), cell(method), *(cell(value or "–") for value in first.values())]
        line += [cell("–" if size is None else f"{size.effect:,.0f}"), cell(str(len(own))), cell(_cosine(loss))]
        for place in SITES:
            line += [_change(means, "control", place, GAP, where), _t_and_p(tests, "control", place, GAP, where)]
        for role in kept:
            ends = (means.get((retention_metric(w, role), *where)) for w in PHASES)
            line.append(cell(" → ".join("–" if r is None else f"{r.effect:.1f}" for r in ends)))
        body.append(tuple(line))
        numbers += [
            (language, method, *first.values(), r.test, r.effect, r.statistic, r.n)
            for key, r in means.items()
            if key[1:] == where
        ]
    tasks = sorted(set(runs["retained"]) - {""})
    caption = (
        f"{setting}. The gap is the cosine of translations less that of random pairs, each language's mean taken out, "
        "of control pairs, which are not trained: base model → run, where the loss is and in the model's output, and "
        "t and p of the runs' own tests over pairs (Holm over runs). A loss that ends at its margin of .4 has told "
        "nothing apart. Means over seeds."
    )
    caption += f" F1 in points on {' and '.join(tasks)}, which is not trained." if tasks and kept else ""
    return Table(
        name=name,
        title="Runs of lexical injection.",
        caption=caption,
        header=(
            *("language", "method", "blocks", "loss after block", "rank", "parameters", "runs", "last loss"),
            *("gap, at the loss", "t; p", "gap, output", "t; p"),
            *(f"F1, {'English' if role == 'en' else 'target'}" for role in kept),
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
            for place in SITES:
                line = [cell(language), cell(method), cell(pairs), cell("at the loss" if place == POOLED else place)]
                line += [_change(means, pairs, place, COSINE, where), _change(means, pairs, place, RANDOM, where)]
                line.append(_t_and_p(tests, pairs, place, COSINE, where))
                line += [_change(means, pairs, place, GAP, where), _t_and_p(tests, pairs, place, GAP, where)]
                for measure in ("p1", "mrr"):
                    both = (_change(means, pairs, place, f"{measure}/{way}/centred", where) for way in ("to", "from"))
                    line.append(tuple(part for one in both for part in one))
                    line.append(cell(_cosine(means.get((f"floor/{pairs}/{measure}", *where)))))
                body.append(tuple(line))
    numbers = [
        (r.groups[1], r.groups[0], *r.groups[2:], r.test, r.effect, *(r.interval or (None, None)), *_test_of(r))
        for r in records
        if r.test.startswith("paired/")
    ]
    columns = ["language", "method", "seed", "test", "rise", "low", "high", "t", "p", "p_holm", "pairs"]
    return Table(
        name=name,
        title="Pairs before and after.",
        caption=(
            f"{setting}. Base model → run: mean cosine of translations and of random pairs as it is; their gap with "
            "each language's mean taken out; how often a word finds its translation among all (P@1) and the mean "
            "reciprocal rank, from English / to English, with chance. Beside the cosine and the gap, t and p of the "
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


def _test_of(record: Record) -> tuple[float | None, ...]:
    return record.statistic, record.p, record.p_adjusted, record.n


def _cells(runs: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return language, method and runs, languages together."""
    order = method_order(runs)
    return [
        (language, method, own)
        for language in sorted(set(runs["language"]))
        for method in order
        if len(own := runs[(runs["language"] == language) & (runs["method"] == method)])
    ]


def _means(records: Sequence[Record]) -> _Means:
    return {(r.test, *r.groups): r for r in records if not r.test.startswith("paired/")}


def _change(means: _Means, pairs: str, place: str, measure: str, where: tuple[str, str]) -> Cell:
    return cell(" → ".join(_cosine(means.get((similarity_metric(w, pairs, place, measure), *where))) for w in PHASES))


def _t_and_p(tests: _Tests, pairs: str, place: str, measure: str, where: tuple[str, str]) -> Cell:
    """Write t and Holm's p of the runs in a cell: from the least to the greatest where they are several."""
    found = tests.get((paired_test_name(pairs, place, measure), *where), ())
    if not found:
        return cell("–")
    ts, ps = sorted(r.statistic or 0.0 for r in found), sorted(r.p_adjusted or 0.0 for r in found)
    both = ((f"{ts[0]:.1f}", f"{ts[-1]:.1f}"), (p_value(ps[0]), p_value(ps[-1])))
    return cell("; ".join(" to ".join(dict.fromkeys(ends)) for ends in both))


def _values(rows: pd.DataFrame, key: str) -> str:
    return "; ".join(dict.fromkeys(format_value(key, value) for value in rows[key]))


def _cosine(record: Record | None) -> str:
    return "–" if record is None or record.effect is None else f"{record.effect:.3f}"


def _apart(record: Record) -> bool:
    return record.p_adjusted is not None and record.p_adjusted < 0.05
