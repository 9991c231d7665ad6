"""Summarises runs that differ in their seed alone in one MLflow run of kind `summary`, under which the UI nests them.

A run does not depend on its summary: if one cannot be written, the next run of the cell that finishes does it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import sqrt
from statistics import fmean, stdev

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from whichlora.config.plan import Plan
from whichlora.config.spec import RunSpec, canonical_digest
from whichlora.data.chat import NONE
from whichlora.data.metric_names import headline_first
from whichlora.errors import OptionError, printable
from whichlora.masking import masked
from whichlora.run import description
from whichlora.tracking.client import find_experiment, is_read_only, search_all
from whichlora.tracking.context import context_tags
from whichlora.tracking.creation import create_run
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import NAME_LIMIT, Tracker

MIN_SEEDS = 2
"""Seeds from which there is a summary; that of a single run would only repeat it."""
PARENT = "mlflow.parentRunId"
_OTHER_BY_SEED = {"seed", "train_digest", "test_digests", "model"}
"""Fields of a spec that may differ within a cell: the items follow the seed, and a model's digest is its identity."""
_CELL_FIELDS = ("spec_version", *(f.name for f in fields(RunSpec) if f.name not in _OTHER_BY_SEED))
_TASK_PARAMS = ("source_language", "target_languages", "headline")
_AVERAGED = ("test/", "gain/", "base/", "floor/", "train/seconds")
_FAILURES = (MlflowException, SQLAlchemyError, OSError, OptionError)
_ATTEMPTS = 5
_LOST_TO_ANOTHER = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
"""Error codes of a summary that another process has just deleted, because it kept another one."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The runs of a cell: one per seed, finished, by seed."""

    fingerprint: str
    runs: Sequence[Run]

    @property
    def ids(self) -> set[str]:
        return {run.info.run_id for run in self.runs}


def update(plan: Plan, tracker: Tracker, run_id: str) -> None:
    """Bring the summary of a finished run's cell up to date, creating it with the second seed.

    Of several processes the last one to write has read the runs of all others: each reads them again after writing, and
    writes again if there are more.
    """
    if is_read_only():
        return
    try:
        for attempt in range(_ATTEMPTS):
            try:
                if _written(plan, tracker, run_id):
                    return
            except MlflowException as error:
                if attempt == _ATTEMPTS - 1 or error.error_code not in _LOST_TO_ANOTHER:
                    raise
    except _FAILURES as error:
        _warn(f"of {plan.cell_name}", error)


def mend(plans: Sequence[Plan], tracker: Tracker, done: Mapping[str, Run]) -> None:
    """Update the summaries that lack finished runs, such as after a kill between a run's end and its summary.

    Args:
        plans: the runs of an experiment.
        done: its finished runs by fingerprint.
    """
    cells: dict[str, list[tuple[Plan, Run]]] = {}
    for plan in plans:
        if run := done.get(plan.spec.fingerprint):
            cells.setdefault(_fingerprint(run), []).append((plan, run))
    if is_read_only() or all(len(members) < MIN_SEEDS for members in cells.values()):
        return
    try:
        summaries = search_all(tracker.client.search_runs, [_place(tracker)], "tags.`whichlora.kind` = 'summary'")
        counts = {run.data.tags.get("whichlora.fingerprint"): run.data.metrics.get("seeds", 0) for run in summaries}
    except _FAILURES as error:
        _warn("of the experiment", error)
        return
    for fingerprint, members in cells.items():
        if len(members) >= MIN_SEEDS and counts.get(fingerprint, 0) < len(members):
            plan, run = members[-1]
            update(plan, tracker, run.info.run_id)


def statistics(runs: Sequence[Mapping[str, float]], headline: str) -> dict[str, float]:
    """Return the metrics of a summary from those of at least two runs.

    They are the means under the names that runs have, of scores also `_sd`, the standard deviation over seeds, and
    `_low` and `_high`, the 95 % interval of the mean by Student's t; and `seeds`.
    """
    from scipy.stats import t  # takes a second to import

    n = len(runs)
    width = float(t.ppf(0.975, n - 1)) / sqrt(n)
    shared = set.intersection(*(set(metrics) for metrics in runs))
    result: dict[str, float] = {}
    for name in sorted(shared):
        if name.startswith(_AVERAGED) and not name.endswith(("_low", "_high")):
            values = [metrics[name] for metrics in runs]
            mean = result[name] = fmean(values)
            if name.startswith("test/"):
                sd = result[f"{name}_sd"] = stdev(values)
                result |= {f"{name}_low": mean - width * sd, f"{name}_high": mean + width * sd}
    return {**headline_first(result, headline), "seeds": float(n)}


def _written(plan: Plan, tracker: Tracker, run_id: str) -> bool:
    """Write the summary once; return whether it holds what the server has now."""
    client, place = tracker.client, _place(tracker)
    cell = _cell_of(client.get_run(run_id), tracker, place)
    condition = f"tags.`whichlora.kind` = 'summary' and tags.`whichlora.fingerprint` = '{cell.fingerprint}'"
    if len(cell.runs) < MIN_SEEDS:
        for stale in client.search_runs([place], condition):
            client.delete_run(stale.info.run_id)  # runs were deleted
        return True
    if not client.search_runs([place], condition):
        tags = {"kind": "summary", "experiment": tracker.experiment, "fingerprint": cell.fingerprint}
        named = {**{f"whichlora.{key}": value for key, value in tags.items()}, **context_tags()}
        create_run(client, place, named, f"{plan.summary_name} {cell.fingerprint[:6]}"[:NAME_LIMIT])
    summaries = list(search_all(client.search_runs, [place], condition, run_view_type=ViewType.ALL))
    kept, *others = sorted(s.info.run_id for s in summaries if s.info.lifecycle_stage == "active")
    for other in others:
        client.delete_run(other)
    log = RunLog(client, kept)
    params = {name: cell.runs[0].data.params.get(name, "") for name in (*_CELL_FIELDS, *_TASK_PARAMS)}
    log.params({name: value for name, value in params.items() if value})
    metrics = statistics([run.data.metrics for run in cell.runs], plan.task.headline)
    log.metrics(metrics)
    log.describe(description.summarised(plan, metrics, cell.runs))
    for run in cell.runs:
        parent = run.data.tags.get(PARENT)
        if parent != kept and parent in (None, *(s.info.run_id for s in summaries)):
            client.set_tag(run.info.run_id, PARENT, kept)
    client.set_terminated(kept, "FINISHED")
    fresh = _cell_of(client.get_run(run_id), tracker, place)
    now = client.search_runs([place], condition)
    return fresh.ids == cell.ids and [s.info.run_id for s in now] == [kept] and now[0].data.metrics == metrics


def _place(tracker: Tracker) -> str:
    """Return the id of the experiment, which has runs."""
    experiment = find_experiment(tracker.client, tracker.experiment)
    assert experiment is not None
    return str(experiment.experiment_id)


def _warn(whose: str, error: Exception) -> None:
    reason = printable(masked(" ".join(str(error).split())[:300]))
    print(f"warning: the summary {whose} over seeds is not up to date: {reason}", file=sys.stderr)


def _cell_of(run: Run, tracker: Tracker, place: str) -> _Cell:
    """Return the cell of a finished run; of several runs with one seed, as with changed data, the newest counts."""
    params, fingerprint = run.data.params, _fingerprint(run)
    conditions = ["attributes.status = 'FINISHED'", "tags.`whichlora.kind` = 'run'"]
    conditions += [f"params.{name} = '{params[name]}'" for name in ("variant", "arm", "language", "tl_ratio")]
    found = search_all(
        tracker.client.search_runs, [place], " and ".join(conditions), order_by=["attributes.start_time ASC"]
    )
    by_seed = {other.data.params["seed"]: other for other in found if _fingerprint(other) == fingerprint}
    return _Cell(
        fingerprint=fingerprint, runs=sorted(by_seed.values(), key=lambda other: int(other.data.params["seed"]))
    )


def _fingerprint(run: Run) -> str:
    params = run.data.params
    values = {name: params.get(name, NONE if name == "chat_template" else "") for name in _CELL_FIELDS}
    return canonical_digest({"kind": "summary", **values})
