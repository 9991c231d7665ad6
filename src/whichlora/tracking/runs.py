"""Finds MLflow runs by their identifying tags, creates or resumes them, and logs to them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from whichlora import termination
from whichlora.errors import LostLeaseError, NonFiniteError, PrunedError, check_name
from whichlora.parallel.locks import exclusive
from whichlora.tracking.client import (
    check_writable,
    connect,
    default_experiment,
    experiment_id,
    find_experiment,
    mark_launch,
    work_folder,
)
from whichlora.tracking.creation import create_run

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
PARAM_LIMIT = 6000
"""Characters to which params are cut; MLflow's limit."""
NAME_LIMIT = 250
"""Characters to which the names of runs are cut; PostgreSQL rejects longer ones, which SQLite accepts."""


@dataclass(frozen=True)
class Tracker:
    """Finds and creates runs in one experiment.

    Attributes:
        experiment: name of the experiment.
        launch: id of the run created by `mlflow run`, if any.
        check_lease: raises `LostLeaseError` if the lease has passed to another process; None if the work is not leased.
            The holder of a lease resumes an unfinished run even if it was started on another machine.
        parent: id of the run under which the UI nests the created runs.
    """

    client: MlflowClient
    experiment: str
    launch: str | None = None
    check_lease: Callable[[], None] | None = None
    parent: str | None = None

    @classmethod
    def for_command(cls, experiment: str | None = None) -> Tracker:
        """Return a tracker for the current command, and tag its launch.

        `experiment` defaults to the one set for the command, see `default_experiment`. It is created with its first
        run.

        Raises:
            OptionError: The database cannot be used, the experiment was deleted or cannot have this name, or
                `MLFLOW_EXPERIMENT_ID` or `MLFLOW_RUN_ID` is not in the database.
        """
        client = connect()
        name = default_experiment(client) if experiment is None else experiment
        if find_experiment(client, name) is None:
            check_name("experiment", name)
        return cls(client, name, mark_launch(client))

    def link_launch(self, run_id: str) -> None:
        """Tag the launch, if any, with the id of the run that holds its results."""
        if self.launch:
            self.client.set_tag(self.launch, "whichlora.result", run_id)

    def find(self, kind: str, *, status: str, **tags: str) -> Run | None:
        """Return the newest run of the experiment with this kind, status and `whichlora.*` tags, or None."""
        conditions = [f"attributes.status = '{status}'", f"tags.`whichlora.kind` = '{kind}'"]
        conditions += [f"tags.`whichlora.{name}` = '{value}'" for name, value in tags.items()]
        experiment = find_experiment(self.client, self.experiment)
        if experiment is None:
            return None
        runs = self.client.search_runs(
            [experiment.experiment_id],
            " and ".join(conditions),
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return runs[0] if runs else None

    @contextmanager
    def once(self, kind: str, name: str, tags: Mapping[str, str], *, work: Path) -> Iterator[Attempt]:
        """Open the run for a piece of work that must be done once, even if several processes request it.

        The folder `work` is locked within the block. If a finished run of this kind has these tags, the attempt refers
        to it and the block has nothing to do. Otherwise a run is created, or an unfinished one resumed; it is marked
        FINISHED at the end of the block, or FAILED or KILLED if the block raises. The folder is deleted on success and
        kept after a failure, so that the next attempt can resume from it.

        A finished run is found without the lock, so that users who can only read the database find it too.

        Args:
            tags: without their prefix `whichlora.`; together with the kind they identify the work.

        Raises:
            OptionError: This user cannot write to the database.
        """
        finished = self.find(kind, status="FINISHED", **tags)
        if finished is not None:
            yield Attempt(finished=finished)
            return
        check_writable()
        with exclusive(work):
            finished = self.find(kind, status="FINISHED", **tags)
            if finished is not None:
                yield Attempt(finished=finished)
                return
            with termination.deferred():  # a signal in between would leave a run that counts as running
                log = self.open(kind, name, tags)
            try:
                with log.guarded():
                    termination.check()
                    yield Attempt(_log=log)
            except PrunedError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(work, ignore_errors=True)

    def open(self, kind: str, name: str, tags: Mapping[str, str]) -> RunLog:
        """Resume the unfinished run that these tags identify, or create one.

        The caller must hold the lock of the work folder, so a RUNNING run with the same machine and work folder (tag
        `place`) was killed. A RUNNING run of another machine or folder may be alive, and is resumed only if this
        process holds the lease of the work.
        """
        origin = hashlib.sha256(f"{platform.node()}:{work_folder()}".encode()).hexdigest()[:16]
        identity, tags = dict(tags), {**tags, "place": origin}
        for status in ("RUNNING", "FAILED", "KILLED"):
            same_origin = {"place": origin} if status == "RUNNING" and self.check_lease is None else {}
            unfinished = self.find(kind, status=status, **identity, **same_origin)
            if unfinished:
                self.client.update_run(unfinished.info.run_id, status="RUNNING")
                log = RunLog(self.client, unfinished.info.run_id, self.check_lease)
                log.tags({"resumed": "true", "place": origin})
                return log
        run_tags = {
            f"whichlora.{key}": value for key, value in {"kind": kind, "experiment": self.experiment, **tags}.items()
        }
        if self.launch:
            run_tags["whichlora.launch"] = self.launch
        if self.parent:
            run_tags["mlflow.parentRunId"] = self.parent
        run_id = create_run(self.client, experiment_id(self.client, self.experiment), run_tags, name[:NAME_LIMIT])
        return RunLog(self.client, run_id, self.check_lease)


@dataclass(frozen=True)
class Attempt:
    """A tracked piece of work: either the finished run that did it, or the open run to log it to."""

    finished: Run | None = None
    _log: RunLog | None = None

    @property
    def log(self) -> RunLog:
        """The open run. Use only if `finished` is None."""
        assert self._log is not None
        return self._log

    @property
    def run_id(self) -> str:
        """The id of the finished or open run."""
        return str(self.finished.info.run_id) if self.finished is not None else self.log.run_id


@dataclass(frozen=True)
class RunLog:
    """Logs to one run; `check_lease` is that of the `Tracker`."""

    client: MlflowClient
    run_id: str
    check_lease: Callable[[], None] | None = None

    @contextmanager
    def guarded(self) -> Iterator[RunLog]:
        """Mark the run FINISHED at the end of the block or when it is pruned, else FAILED or KILLED with an error tag.

        Raises:
            LostLeaseError: the lease was lost; the run, which now belongs to another process, is left unchanged.
        """
        try:
            yield self
        except LostLeaseError:
            raise
        except PrunedError as pruned:
            with termination.deferred():
                self.tags({"pruned": str(pruned)})
                self.client.set_terminated(self.run_id, "FINISHED")
            raise
        except BaseException as error:
            with termination.deferred():
                self._check()  # do not mark a run that another process has taken over or finished
                text = f"{type(error).__name__}: {error}"[:4000]
                status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
                self.client.set_tag(self.run_id, "whichlora.error", text)
                self.client.set_terminated(self.run_id, status)
            raise
        with termination.deferred():
            self._check()
            if "whichlora.error" in self.client.get_run(self.run_id).data.tags:
                self.client.delete_tag(self.run_id, "whichlora.error")  # set by an earlier attempt
            self.client.set_terminated(self.run_id, "FINISHED")

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params, with lists joined by commas and mappings as JSON.

        Params cannot be changed. If an earlier attempt at the run logged another value (another version of a package,
        another path to the same model), that value remains and the new one becomes the tag `whichlora.now/<param>`.
        """
        texts = {key: _text(value)[:PARAM_LIMIT] for key, value in values.items()}
        logged = self.client.get_run(self.run_id).data.params
        self._batches(params=[Param(key, text) for key, text in texts.items() if key not in logged])
        self.tags({f"now/{key}": text for key, text in texts.items() if logged.get(key, text) != text})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step.

        Raises:
            NonFiniteError: One of them is NaN or infinite; none is logged. Leave out what is not defined.
        """
        check_metrics(values.items())
        now = int(time.time() * 1000)
        self._batches(metrics=[Metric(key, float(value), now, step) for key, value in values.items()])

    def series(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log a metric's (step, value) points beyond the last step already logged.

        Raises:
            NonFiniteError: A value is NaN or infinite; none is logged.
        """
        points = list(points)
        check_metrics((f"{key} at step {step}", value) for step, value in points)
        history = self.client.get_metric_history(self.run_id, key)
        last = max((metric.step for metric in history), default=-1)
        now = int(time.time() * 1000)
        self._batches(metrics=[Metric(key, value, now, step) for step, value in points if step > last])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, adding the prefix `whichlora.` to their keys."""
        self._batches(tags=[RunTag(f"whichlora.{key}", value) for key, value in values.items()])

    def dataset(self, *, context: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a dataset input. `profile` is JSON with its size."""
        self._check()
        entity = Dataset(name=name, digest=digest[:36], source_type="local", source=source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset=entity, tags=[tag])])

    def artifacts(self, folder: Path, artifact_path: str | None = None) -> None:
        """Log the contents of a folder as artifacts under `artifact_path`."""
        self._check()
        self.client.log_artifacts(self.run_id, str(folder), artifact_path)

    def _check(self) -> None:
        if self.check_lease is not None:
            self.check_lease()

    def _batches(
        self, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self._check()
        for start in range(0, max(len(metrics), len(params), len(tags)), 100):
            part = slice(start, start + 100)
            self.client.log_batch(self.run_id, metrics=metrics[part], params=params[part], tags=tags[part])


def check_metrics(values: Iterable[tuple[str, float]]) -> None:
    """Check that no metric is NaN or infinite.

    Raises:
        NonFiniteError: One is; the message names the first.
    """
    for name, value in values:
        if not math.isfinite(value):
            raise NonFiniteError(f"the metric {name} is {value}")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
