"""Shows the scores of an experiment at its end: means over seeds with intervals, by method, language and ratio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from statistics import mean

from mlflow.entities import Run

from whichlora.config.plan import Plan
from whichlora.config.spec import RunSpec
from whichlora.data.chat import NONE
from whichlora.evaluation.intervals import students_t
from whichlora.experiment.grid import Grid
from whichlora.run_table.scores import Score, scores_of
from whichlora.text_tables import table

_DESIGN = ("task", "model", "language", "tl_ratio")
_OPTIONS = tuple(
    field.name
    for field in fields(RunSpec)
    if field.name not in {"variant", "arm", "seed", "train_digest", "test_digests", "model_digest", *_DESIGN}
)
"""Fields of the spec that are columns if a method has several values of them in one task, language and ratio."""
_INTERVAL = "95 % CI"


def results_table(grid: Grid, done: Mapping[str, Run], *, width: int | None) -> str:
    """Return the mean scores of the grid's cells as a table of at most `width` cells.

    A cell is all seeds of one spec; its interval is Student's t over seeds, or with one seed that over items.

    Args:
        done: finished runs by fingerprint.
    """
    fields = [name for name in (*_DESIGN, *_OPTIONS) if _varies(name, grid.plans)]
    cells: dict[tuple[str, ...], list[Plan]] = {}
    for plan in grid.plans:
        key = (f"{plan.spec.variant}-{plan.spec.arm}", *(_text(plan, name) for name in fields))
        cells.setdefault(key, []).append(plan)
    results = {key: _scores(plans, done) for key, plans in cells.items()}
    titles = list(dict.fromkeys(title for scores in results.values() for title in scores))
    metrics = sorted({score.metric for scores in results.values() for found in scores.values() for score in found})
    head = ["method", *("ratio" if name == "tl_ratio" else name for name in fields), "seeds"]
    head += [text for title in titles for text in (f"{' / '.join(metrics)} {title}", _INTERVAL)]
    rows = [head]
    for key, scores in results.items():
        wanted, found = len(cells[key]), sum(plan.spec.fingerprint in done for plan in cells[key])
        row = [*key, str(found) if found == wanted else f"{found} of {wanted}"]
        for title in titles:
            row += _mean(scores.get(title, ()))
        rows.append(row)
    optional = (
        _INTERVAL,
        *reversed([name for name in head if name not in ("method", "language", "ratio")][: len(fields)]),
    )
    note = "Means over seeds; intervals by Student's t over seeds, with one seed over items."
    return f"{grid.name}: {note}\n{table(rows, width=width, optional=optional)}"


def _varies(name: str, plans: Iterable[Plan]) -> bool:
    """Return whether a field has several values; for an option, of one method in one task, language and ratio."""
    values: dict[tuple[str, ...], set[str]] = {}
    for plan in plans:
        cell = () if name in _DESIGN else (plan.spec.variant, plan.spec.arm, *(_text(plan, key) for key in _DESIGN))
        values.setdefault(cell, set()).add(_text(plan, name))
    return any(len(of_cell) > 1 for of_cell in values.values())


def _text(plan: Plan, name: str) -> str:
    value = plan.model_name if name == "model" else getattr(plan.spec, name)
    if name == "chat_template" and value != NONE:
        return str(value)[:8]  # of a digest
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _scores(plans: Sequence[Plan], done: Mapping[str, Run]) -> dict[str, list[Score]]:
    """Return the scores of a cell's finished runs by test set."""
    found: dict[str, list[Score]] = {}
    for plan in plans:
        if run := done.get(plan.spec.fingerprint):
            for title, score in scores_of(run).items():
                found.setdefault(title, []).append(score)
    return found


def _mean(scores: Sequence[Score]) -> tuple[str, str]:
    """Return the mean of a cell's scores and its interval as text."""
    if not scores:
        return "-", ""
    values = [score.value for score in scores]
    ends = scores[0].interval if len(values) == 1 else students_t(values)
    scale = scores[0].scale
    return scale.text(mean(values)), "" if ends is None else scale.interval(*ends)
