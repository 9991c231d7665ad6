"""Searches the tracking database for runs, and describes each by what it compared, its scores and how it ended."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from whichlora.config.cli import format_duration
from whichlora.parallel.locks import is_held
from whichlora.run_table.scores import Score, scores_of
from whichlora.tracking.client import connect, database_exists, search_all, sqlite_file
from whichlora.tracking.lookup import all_experiments, find_experiments
from whichlora.tracking.runs import place, work_of

_NEWEST = ["attributes.start_time DESC"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """What runs are looked for; None and missing params stand for all values.

    Attributes:
        experiment: names of experiments, separated by commas.
        status: in lower case.
        params: values by name.
    """

    experiment: str | None
    kind: str | None
    status: str | None
    params: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as it is listed.

    Attributes:
        model: name or folder of the base model.
        reason: why it has no result, in short, or "".
        seeds: number of seeds of a summary; None for other kinds.
        started: time of the start.
        seconds: duration of the training; None if it has not been logged.
        scores: the scores by test set, see `scores_of`.
    """

    run_id: str
    name: str
    experiment: str
    kind: str
    variant: str
    arm: str
    task: str
    model: str
    language: str
    tl_ratio: str
    seed: str
    seeds: int | None
    status: str
    reason: str
    started: datetime
    seconds: float | None
    scores: Mapping[str, Score]

    @property
    def method(self) -> str:
        """Variant and arm."""
        return "-".join(filter(None, (self.variant, self.arm)))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The runs that were found, ordered by what they compared.

    Attributes:
        more: whether there are more than the limit.
        remark: why there are none, or "".
    """

    runs: Sequence[Listed]
    more: bool = False
    remark: str = ""


def search(query: Query, limit: int | None) -> Listing:
    """Return the newest runs of a query, at most `limit`; a missing database is not created.

    Raises:
        OptionError: there is no such experiment, or the database cannot be used.
    """
    if not database_exists():
        return Listing(runs=(), remark=f"There is no tracking database {sqlite_file()}, so there are no runs.")
    client = connect()
    experiments = all_experiments(client) if query.experiment is None else find_experiments(client, query.experiment)
    names = {number: name for name, number in experiments.items()}
    most = None if limit is None else limit + 1  # one more tells whether there are more
    found = list(itertools.islice(_matching(client, query, list(names), most), most))
    here = place()
    runs = sorted((_listed(run, names[run.info.experiment_id], here) for run in found[:limit]), key=_order)
    remark = "" if runs else _what_there_is(client, list(names), query)
    return Listing(runs=runs, more=len(found) > len(runs), remark=remark)


def _order(run: Listed) -> tuple[object, ...]:
    what = (run.experiment, run.kind, run.task, run.model, run.method, run.language)
    return *what, *map(_number, (run.tl_ratio, run.seed)), run.started


def _number(text: str) -> float:
    """Return a param as a number; a missing one comes first."""
    try:
        return float(text)
    except ValueError:
        return -math.inf


def _matching(client: MlflowClient, query: Query, experiments: Sequence[str], most: int | None) -> Iterator[Run]:
    """Yield the runs of a query, the newest first, page by page; the caller needs at most `most` of them."""
    wanted = {f"params.`{name}`": value for name, value in query.params.items()}
    if query.kind is not None:
        wanted["tags.`whichlora.kind`"] = query.kind
    if query.status is not None:
        wanted["attributes.status"] = query.status.upper()
    # A value with both kinds of quotation marks cannot be written in a filter.
    condition = " and ".join(
        f"{key} = {mark}{value}{mark}" for key, value in wanted.items() if (mark := _quotation_mark(value))
    )
    if not experiments:
        return
    for run in search_all(client.search_runs, experiments, condition, order_by=_NEWEST, most=most):
        if all(run.data.params.get(name) == value for name, value in query.params.items()):
            yield run


def _quotation_mark(value: str) -> str | None:
    return next((mark for mark in "'\"" if mark not in value), None)


def _what_there_is(client: MlflowClient, experiments: list[str], query: Query) -> str:
    """Return, for a query without results, the values that the newest runs have of each param in it."""
    if not query.params:
        return "There are no such runs."
    page = client.search_runs(experiments, order_by=_NEWEST) if experiments else []
    values = {name: sorted({v for run in page if (v := run.data.params.get(name))}) for name in query.params}
    there_are = "; ".join(f"{name} {', '.join(known)}" if known else f"no {name}" for name, known in values.items())
    return f"There are no such runs. Logged values: {there_are}."


def _listed(run: Run, experiment: str, here: str) -> Listed:
    params, tags = run.data.params, run.data.tags
    kind, seeds = tags.get("whichlora.kind", "other"), run.data.metrics.get("seeds")
    return Listed(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        kind=kind,
        variant=params.get("variant", ""),
        arm=params.get("arm", ""),
        task=params.get("task", ""),
        model=params.get("model", ""),
        language=params.get("language", ""),
        tl_ratio=params.get("tl_ratio", ""),
        seed=params.get("seed", ""),
        seeds=int(seeds) if kind == "summary" and seeds is not None else None,
        status=run.info.status.lower(),
        reason=_reason(run, here),
        started=datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC),
        seconds=run.data.metrics.get("train/seconds"),
        scores=scores_of(run),
    )


def _reason(run: Run, here: str) -> str:
    """Return why a run has no result, or was pruned, in one line; "" for a finished run.

    Args:
        here: the tag `place` of runs of this machine, whose locks say whether they are still at work.
    """
    tags = run.data.tags
    if run.info.status == "FINISHED":
        return " ".join(tags.get("whichlora.pruned", "").split())
    if run.info.status != "RUNNING":
        return " ".join(tags.get("whichlora.error", "ended without an error message").split())
    fingerprint = tags.get("whichlora.training_fingerprint", "")
    locked_here = tags.get("whichlora.kind") == "run" and tags.get("whichlora.place") == here
    if locked_here and not is_held(work_of("run", fingerprint)):
        return "its process has ended; the same command resumes it"
    return f"started {format_duration(max(0.0, time.time() - run.info.start_time / 1000))} ago"
