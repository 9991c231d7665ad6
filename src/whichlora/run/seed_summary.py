"""Summarises runs that differ in their seed alone in one MLflow run of kind `summary`, under which the UI nests them.

A run does not depend on its summary: if one cannot be written, the next run of the cell that finishes does it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from whichlora.config.plan import Plan
from whichlora.config.spec import RunSpec, canonical_digest
from whichlora.data.chat import NONE
from whichlora.data.metric_names import headline_first
from whichlora.errors import OptionError, in_a_line
from whichlora.evaluation.intervals import students_t
from whichlora.masking import masked
from whichlora.run import description
from whichlora.tracking.client import find_experiment, is_read_only, search_all
from whichlora.tracking.context import context_tags
from whichlora.tracking.creation import create_run
from whichlora.tracking.markdown import NOTE_LIMIT
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import NAME_LIMIT, Tracker
from whichlora.variants.colors import RUN_COLOR, method_color

MIN_SEEDS = 2
"""Seeds from which there is a summary; that of a single run would only repeat it."""
_FOLLOWS_SEED = {"seed", "train_digest"}
_CELL_FIELDS = ("spec_version", *(f.name for f in fields(RunSpec) if f.name not in {*_FOLLOWS_SEED, "model"}))
"""Fields of a spec that are the same within a cell; a model is identified by its digest, not by where it is."""
_TRAINED_ITEMS = "trained"
"""The test set of word pairs whose items are those of the training, which follow the seed; others do not."""
_TASK_PARAMS = ("source_language", "target_languages", "headline")
_AVERAGED = ("test/", "gain/", "base/", "floor/", "train/seconds", "train/price", "forgetting/", "inference/")
_FAILURES = (MlflowException, SQLAlchemyError, OSError, OptionError)
_ATTEMPTS = 5
_FINISHED = "attributes.status = 'FINISHED' and tags.`whichlora.kind` = 'run'"
_OLDEST = ("attributes.start_time ASC",)
_LOST_TO_ANOTHER = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
"""Error codes of a summary that another process has just deleted, because it kept another one."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The runs of a cell: one per seed, finished, by seed."""

    fingerprint: str
    runs: Sequence[Run]


def update(plan: Plan, tracker: Tracker, run_id: str) -> None:
    """Bring the summary of a finished run's cell up to date, creating it with the second seed.

    Of several processes the last one to write has read the runs of all others: each reads them again after writing, and
    writes again if there are more.
    """
    if is_read_only():
        return
    problem: object = "other processes changed it at the same time"
    for _ in range(_ATTEMPTS):
        try:
            if _written(plan, tracker, run_id):
                return
        except _FAILURES as error:
            problem = error
            if not (isinstance(error, MlflowException) and error.error_code in _LOST_TO_ANOTHER):
                break
    _warn(f"of {plan.cell_name}", problem)


def mend(plans: Sequence[Plan], tracker: Tracker, done: Mapping[str, Run]) -> None:
    """Update the summaries that are not as their runs say, such as after a kill, or after runs were deleted.

    Args:
        plans: the runs of an experiment.
        done: its finished runs by fingerprint.
    """
    cells = {_fingerprint(run): (plan, run) for plan in plans if (run := done.get(plan.spec.fingerprint))}
    if is_read_only() or not cells:
        return
    try:
        stored = _cells(search_all(tracker.client.search_runs, [_place(tracker)], _FINISHED, order_by=_OLDEST))
        summaries: dict[str, list[Run]] = {}
        for summary in _summaries(tracker, _place(tracker)):
            summaries.setdefault(summary.data.tags.get("whichlora.fingerprint", ""), []).append(summary)
    except _FAILURES as error:
        _warn("of the experiment", error)
        return
    for fingerprint, (plan, run) in cells.items():
        cell = stored.get(fingerprint, _Cell(fingerprint=fingerprint, runs=()))
        if not _is_current(plan, cell, summaries.get(fingerprint, ())):
            update(plan, tracker, run.info.run_id)


def statistics(runs: Sequence[Mapping[str, float]], headline: str) -> dict[str, float]:
    """Return the metrics of a summary from those of at least two runs.

    They are the means under the names that runs have, of scores also `_sd`, the standard deviation over seeds, and
    `_low` and `_high`, the 95 % interval of the mean by Student's t; and `seeds`.
    """
    shared = set.intersection(*(set(metrics) for metrics in runs))
    result: dict[str, float] = {}
    for name in sorted(shared):
        if name.startswith(_AVERAGED) and not name.endswith(("_low", "_high")):
            values = [metrics[name] for metrics in runs]
            result[name] = fmean(values)
            if name.startswith("test/") or name.endswith("/ce_rise"):
                low, high = students_t(values)
                result |= {f"{name}_sd": stdev(values), f"{name}_low": low, f"{name}_high": high}
    return {**headline_first(result, headline), "seeds": float(len(runs))}


def _written(plan: Plan, tracker: Tracker, run_id: str) -> bool:
    """Write the summary once, if need be; return whether it holds what the server has now."""
    client, place = tracker.client, _place(tracker)
    cell = _cell_of(client.get_run(run_id), tracker, place)
    summaries = _summaries(tracker, place, cell.fingerprint)
    if _is_current(plan, cell, summaries):
        return True
    metrics = _statistics(plan, cell)
    # A run's metrics can be changed but not deleted, so a summary that has others gives way to a new one.
    unusable = [s for s in _active(summaries) if not metrics or s.data.metrics.keys() - metrics.keys()]
    for summary in unusable:
        client.delete_run(summary.info.run_id)
    if not metrics:
        return True  # runs were deleted
    if len(unusable) == len(_active(summaries)):
        tags = {"kind": "summary", "experiment": tracker.experiment, "fingerprint": cell.fingerprint}
        named = {**{f"whichlora.{key}": value for key, value in tags.items()}, **context_tags()}
        named[RUN_COLOR] = method_color(plan.spec.variant, plan.spec.arm)
        create_run(client, place, named, f"{plan.summary_name} {cell.fingerprint[:6]}"[:NAME_LIMIT])
    summaries = _summaries(tracker, place, cell.fingerprint)
    kept, *others = sorted(s.info.run_id for s in _active(summaries))
    for other in others:
        client.delete_run(other)
    log = RunLog(client, kept)
    params = {name: cell.runs[0].data.params.get(name, "") for name in (*_CELL_FIELDS, *_TASK_PARAMS)}
    params["test_digests"] = json.dumps(_test_digests(params), sort_keys=True)
    log.params({name: value for name, value in params.items() if value})
    log.metrics(metrics)
    log.describe(description.summarised(plan, metrics, cell.runs))
    for run in cell.runs:
        if not _has_parent(run, kept, summaries):
            client.set_tag(run.info.run_id, MLFLOW_PARENT_RUN_ID, kept)
    client.set_terminated(kept, "FINISHED")
    return _is_current(
        plan, _cell_of(client.get_run(run_id), tracker, place), _summaries(tracker, place, cell.fingerprint)
    )


def _is_current(plan: Plan, cell: _Cell, summaries: Sequence[Run]) -> bool:
    """Return whether the summaries of a cell, deleted ones included, are as its runs say."""
    active, metrics = _active(summaries), _statistics(plan, cell)
    if not metrics or len(active) != 1:
        return not metrics and not active
    (summary,) = active
    wanted = masked(description.summarised(plan, metrics, cell.runs))[:NOTE_LIMIT]
    return (
        summary.info.status == "FINISHED"
        and summary.data.metrics == metrics
        and summary.data.tags.get(MLFLOW_RUN_NOTE) == wanted
        and all(_has_parent(run, summary.info.run_id, summaries) for run in cell.runs)
    )


def _has_parent(run: Run, summary: str, summaries: Sequence[Run]) -> bool:
    """Return whether a run has its summary as its parent, or something else than a summary, such as a study."""
    parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    return parent == summary or parent not in (None, *(s.info.run_id for s in summaries))


def _active(summaries: Iterable[Run]) -> list[Run]:
    return [summary for summary in summaries if summary.info.lifecycle_stage == "active"]


def _statistics(plan: Plan, cell: _Cell) -> dict[str, float]:
    """Return the metrics of a cell's summary; empty if it has too few runs for one."""
    metrics = [run.data.metrics for run in cell.runs]
    return statistics(metrics, plan.task.headline) if len(metrics) >= MIN_SEEDS else {}


def _summaries(tracker: Tracker, place: str, fingerprint: str | None = None) -> list[Run]:
    """Return the summaries of a cell, or of all, including deleted ones."""
    condition = "tags.`whichlora.kind` = 'summary'"
    if fingerprint is not None:
        condition += f" and tags.`whichlora.fingerprint` = '{fingerprint}'"
    return list(search_all(tracker.client.search_runs, [place], condition, run_view_type=ViewType.ALL))


def _place(tracker: Tracker) -> str:
    """Return the id of the experiment, which has runs."""
    experiment = find_experiment(tracker.client, tracker.experiment)
    assert experiment is not None
    return str(experiment.experiment_id)


def _warn(whose: str, problem: object) -> None:
    print(f"warning: the summary {whose} over seeds is not up to date: {in_a_line(problem)}", file=sys.stderr)


def _cell_of(run: Run, tracker: Tracker, place: str) -> _Cell:
    """Return the cell of a finished run."""
    params, fingerprint = run.data.params, _fingerprint(run)
    conditions = [f"params.{name} = '{params[name]}'" for name in ("variant", "arm", "language", "tl_ratio")]
    condition = " and ".join([_FINISHED, *conditions])
    found = search_all(tracker.client.search_runs, [place], condition, order_by=_OLDEST)
    return _cells(found).get(fingerprint, _Cell(fingerprint=fingerprint, runs=()))


def _cells(runs: Iterable[Run]) -> dict[str, _Cell]:
    """Return the cells of runs, the oldest first; of several with one seed, as with changed data, the newest counts."""
    by_seed: dict[str, dict[int, Run]] = {}
    for run in runs:
        if (seed := run.data.params.get("seed", "")).isdecimal():  # else it is not one of ours
            by_seed.setdefault(_fingerprint(run), {})[int(seed)] = run
    return {
        name: _Cell(fingerprint=name, runs=[found[seed] for seed in sorted(found)]) for name, found in by_seed.items()
    }


def _fingerprint(run: Run) -> str:
    params = run.data.params
    values: dict[str, Any] = {name: params.get(name, NONE if name == "chat_template" else "") for name in _CELL_FIELDS}
    return canonical_digest({"kind": "summary", **values, "test_digests": _test_digests(params)})


def _test_digests(params: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the test sets that are the same for every seed."""
    try:
        digests = dict(json.loads(params["test_digests"]))
    except (KeyError, TypeError, ValueError):  # of another program
        return {}
    return {name: digest for name, digest in digests.items() if name != _TRAINED_ITEMS}
