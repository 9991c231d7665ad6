"""Finds MLflow runs by their identifying tags, and creates or resumes them."""

from __future__ import annotations

import hashlib
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlflow.entities import Run, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from whichlora import termination
from whichlora.errors import PrunedError, check_name
from whichlora.parallel.locks import exclusive
from whichlora.tracking.client import (
    check_location,
    check_new_database,
    check_writable,
    connect,
    database_exists,
    default_experiment,
    experiment_id,
    find_experiment,
    is_read_only,
    work_folder,
)
from whichlora.tracking.context import context_tags
from whichlora.tracking.creation import create_run
from whichlora.tracking.launch import link_results, mark_launch
from whichlora.tracking.markdown import paragraphs
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.views import ui_command

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
        if not database_exists():
            check_new_database(experiment)
        client = connect()
        name = default_experiment(client) if experiment is None else experiment
        found = find_experiment(client, name)
        if found is None:
            check_name("experiment", name)
        elif not is_read_only():
            check_location(found)
        return cls(client, name, mark_launch(client))

    def link_launch(self, run_id: str) -> None:
        """Tag the launch, if any, with the id of the run that holds its results."""
        if self.launch:
            link_results(self.client, self.launch, run_id)

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
    def once(self, kind: str, name: str, tags: Mapping[str, str], *, work: Path, about: str = "") -> Iterator[Attempt]:
        """Open the run for a piece of work that must be done once, even if several processes request it.

        The folder `work` is locked within the block. If a finished run of this kind has these tags, the attempt refers
        to it and the block has nothing to do. Otherwise a run is created, or an unfinished one resumed; it is marked
        FINISHED at the end of the block, or FAILED or KILLED if the block raises. The folder is deleted on success and
        kept after a failure, so that the next attempt can resume from it.

        A finished run is found without the lock, so that users who can only read the database find it too.

        Args:
            tags: without their prefix `whichlora.`; together with the kind they identify the work.
            about: what the work is, in Markdown, for the run's description until the block sets another one.

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
                with log.guarded(about):
                    log.describe(paragraphs("**In progress.**", about))
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
        origin = place()
        identity, tags = dict(tags), {**tags, "place": origin}
        for status in ("RUNNING", "FAILED", "KILLED"):
            same_origin = {"place": origin} if status == "RUNNING" and self.check_lease is None else {}
            unfinished = self.find(kind, status=status, **identity, **same_origin)
            if unfinished:
                self.client.update_run(unfinished.info.run_id, status="RUNNING")
                log = RunLog(self.client, unfinished.info.run_id, self.check_lease)
                log.tags({"resumed": "true", "place": origin})
                self.client.log_batch(log.run_id, tags=[RunTag(key, value) for key, value in context_tags().items()])
                return log
        # The UI lists tags in this order, so short ones come first, digests last.
        own = {"experiment": self.experiment, **tags, **({"launch": self.launch} if self.launch else {})}
        ordered = [("kind", kind), *sorted(own.items(), key=lambda tag: len(tag[1]))]
        run_tags = {**context_tags(), **{f"whichlora.{key}": value for key, value in ordered}}
        if self.parent:
            run_tags[MLFLOW_PARENT_RUN_ID] = self.parent
        run_id = create_run(self.client, experiment_id(self.client, self.experiment), run_tags, name[:NAME_LIMIT])
        return RunLog(self.client, run_id, self.check_lease)


def already_done(kind: str, finished: Run) -> str:
    """Return a line for users about work that is not repeated: the run that has its result, and how to see it."""
    ended = datetime.fromtimestamp((finished.info.end_time or finished.info.start_time) / 1000)
    experiment = finished.data.tags.get("whichlora.experiment", "all")
    ui = ui_command()
    command = f"whichlora runs --kind {kind} --experiment {shlex.quote(experiment)}"
    return (
        f"Already done: {kind} {finished.info.run_id} of {ended:%Y-%m-%d %H:%M} has this spec; its results are used. "
        f"`{command}` lists it; delete it in the UI{f' (`{ui}`)' if ui else ''} to run it again."
    )


def place() -> str:
    """Return the value of the tag `place`: this machine and its work folder, whose locks say which runs are alive."""
    return hashlib.sha256(f"{platform.node()}:{work_folder()}".encode()).hexdigest()[:16]


def work_of(kind: str, identity: str) -> Path:
    """Return the folder for the checkpoints of a run; `identity` is a fingerprint."""
    return work_folder() / f"{kind}-{identity[:16]}"


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
