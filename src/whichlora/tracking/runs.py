"""The one place that writes to MLflow: experiments, launches, and runs found or created by fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora import database
from whichlora.errors import LostClaimError, OptionError, PrunedError
from whichlora.parallel import lockstep

if TYPE_CHECKING:
    from mlflow.entities import Experiment

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
DEFAULT_EXPERIMENT = "whichlora"
PARAM_LIMIT = 6000
_PAGE = 1000
"""Results that the tracking server hands out at once; it allows no more."""


def sqlite_file() -> Path | None:
    """Return the tracking database's file when it is SQLite, else None."""
    return database.file_of(mlflow.get_tracking_uri())


def work_folder() -> Path:
    """Return where unfinished runs keep their checkpoints: `WHICHLORA_WORK`, else beside the SQLite database."""
    given = os.environ.get("WHICHLORA_WORK")
    if given:
        return Path(given).absolute()
    file = sqlite_file()
    return (file.parent if file else Path.cwd()) / "whichlora-work"


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Hold a run's work folder, saying so if it has to be waited for; others of a convoy go on meanwhile."""
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_suffix(".lock"))
    told = False
    while True:
        try:
            lock.acquire(blocking=told and not lockstep.inside())
            break
        except Timeout:
            if not told:
                print("Waiting: another process is working on the same spec.", file=sys.stderr)
            told = True
            if lockstep.inside():
                lockstep.give_way()
    try:
        yield
    finally:
        lock.release()


def connect() -> MlflowClient:
    """Return a client of the tracking server or database, whose schema exists from now on."""
    file = sqlite_file()
    if file is None:
        return MlflowClient()
    with database.lock_of(file):
        return touch(MlflowClient())


def check_there(option: str, value: object) -> None:
    """Raise `OptionError` if an option names what is in a tracking database that is not there: `connect` makes one."""
    file = sqlite_file()
    if file is not None and not file.is_file():
        wanted = "work in its folder, or set MLFLOW_TRACKING_URI"
        raise OptionError(option, value, f"there is no tracking database {file}; {wanted}")


def touch(client: MlflowClient) -> MlflowClient:
    """Have a database's schema made, which MLflow does at the first request."""
    client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called `name`, creating it with its artifacts beside a SQLite database."""
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file()
        place = (file.parent / "mlartifacts" / name).as_uri() if file else None
        try:
            # Without the tag the UI opens the experiment as one of language-model traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=place, tags=tags))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def chosen_experiment(client: MlflowClient) -> str:
    """Return the name of the experiment that results go to.

    That is the one named by `mlflow run --experiment-name` or `MLFLOW_EXPERIMENT_NAME`, and `whichlora` otherwise.
    """
    launch_experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    if launch_experiment != "0":
        return str(client.get_experiment(launch_experiment).name)
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def mark_launch(client: MlflowClient) -> str | None:
    """Tag the run that `mlflow run` made as a launch and return its id; None when started otherwise."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    client.set_tag(run_id, "whichlora.kind", "launch")
    client.set_tag(run_id, "mlflow.note.content", "Only the launch: the results are in the runs that it made.")
    return run_id


def every(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Yield all that a search of a client finds, page by page."""
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


@dataclass(frozen=True)
class Tracker:
    """Finds and creates runs in one experiment."""

    client: MlflowClient
    experiment: str
    launch: str | None = None
    claim: Callable[[], None] | None = None
    """Raises where the work was given to another process. With it, an unfinished run of any place is this one's."""
    parent: str | None = None
    """The run under which those that it makes are shown."""

    @classmethod
    def of_call(cls, experiment: str | None = None) -> Tracker:
        """Return the tracker of this call, whose launch is marked, in an experiment or the one chosen for the call."""
        client = connect()
        name = chosen_experiment(client) if experiment is None else experiment
        return cls(client, name, mark_launch(client))

    def link_launch(self, run_id: str) -> None:
        """Note on the launch, if there was one, which run holds its results."""
        if self.launch:
            self.client.set_tag(self.launch, "whichlora.result", run_id)

    def find(self, kind: str, *, status: str, **tags: str) -> Run | None:
        """Return the newest run of this kind with this status and these `whichlora.*` tags, in the experiment."""
        conditions = [f"attributes.status = '{status}'", f"tags.`whichlora.kind` = '{kind}'"]
        conditions += [f"tags.`whichlora.{name}` = '{value}'" for name, value in tags.items()]
        runs = self.client.search_runs(
            [experiment_id(self.client, self.experiment)],
            " and ".join(conditions),
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return runs[0] if runs else None

    def open(self, kind: str, name: str, tags: Mapping[str, str]) -> RunLog:
        """Go on with the unfinished run that has these tags, all of which say what it is, or create one.

        The caller holds the lock of the fingerprint, so a run from the same work folder that is RUNNING was killed.
        One from another place may be alive and is left alone, unless a queue says that the work is this process's.
        """
        place = hashlib.sha256(f"{platform.node()}:{work_folder()}".encode()).hexdigest()[:16]
        identity, tags = dict(tags), {**tags, "place": place}
        for status in ("RUNNING", "FAILED", "KILLED"):
            where = {"place": place} if status == "RUNNING" and self.claim is None else {}
            unfinished = self.find(kind, status=status, **identity, **where)
            if unfinished:
                self.client.update_run(unfinished.info.run_id, status="RUNNING")
                log = RunLog(self.client, unfinished.info.run_id, self.claim)
                log.tags({"resumed": "true", "place": place})
                return log
        own = {
            f"whichlora.{key}": value for key, value in {"kind": kind, "experiment": self.experiment, **tags}.items()
        }
        if self.launch:
            own["whichlora.launch"] = self.launch
        if self.parent:
            own["mlflow.parentRunId"] = self.parent
        run = self.client.create_run(experiment_id(self.client, self.experiment), tags=own, run_name=name)
        return RunLog(self.client, run.info.run_id, self.claim)


@dataclass(frozen=True)
class RunLog:
    """Writes one run."""

    client: MlflowClient
    run_id: str
    claim: Callable[[], None] | None = None

    @contextmanager
    def guarded(self) -> Iterator[RunLog]:
        """Mark the run FINISHED at the end of the block, or FAILED with the error as a tag if it raises."""
        try:
            yield self
        except LostClaimError:
            raise  # the run is another process's now
        except PrunedError as stop:
            self.tags({"pruned": str(stop)})
            self.client.set_terminated(self.run_id, "FINISHED")
            raise
        except BaseException as error:
            self._check()  # a run that another process has taken over, or finished, is not marked
            text = f"{type(error).__name__}: {error}"[:4000]
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self.client.set_tag(self.run_id, "whichlora.error", text)
            self.client.set_terminated(self.run_id, status)
            raise
        self._check()
        if "whichlora.error" in self.client.get_run(self.run_id).data.tags:
            self.client.delete_tag(self.run_id, "whichlora.error")  # of an earlier attempt
        self.client.set_terminated(self.run_id, "FINISHED")

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params, lists as text with commas and mappings as JSON.

        Params cannot be changed. One that an earlier attempt at the run logged with another value (another version of a
        package, another path of the same model) stays, and the new value becomes the tag `whichlora.now/<param>`.
        """
        texts = {key: _text(value)[:PARAM_LIMIT] for key, value in values.items()}
        logged = self.client.get_run(self.run_id).data.params
        self._batches(params=[Param(key, text) for key, text in texts.items() if key not in logged])
        self.tags({f"now/{key}": text for key, text in texts.items() if logged.get(key, text) != text})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step."""
        now = int(time.time() * 1000)
        self._batches(metrics=[Metric(key, float(value), now, step) for key, value in values.items()])

    def series(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log a metric's (step, value) points that are later than those the run has."""
        history = self.client.get_metric_history(self.run_id, key)
        last = max((metric.step for metric in history), default=-1)
        now = int(time.time() * 1000)
        self._batches(metrics=[Metric(key, value, now, step) for step, value in points if step > last])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the form `whichlora.<key>`."""
        self._batches(tags=[RunTag(f"whichlora.{key}", value) for key, value in values.items()])

    def dataset(self, *, context: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a dataset input. `profile` is JSON about its size."""
        entity = Dataset(name=name, digest=digest[:36], source_type="local", source=source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset=entity, tags=[tag])])

    def artifacts(self, folder: Path, place: str | None = None) -> None:
        """Log the contents of a folder."""
        self._check()
        self.client.log_artifacts(self.run_id, str(folder), place)

    def _check(self) -> None:
        if self.claim is not None:
            self.claim()

    def _batches(
        self, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self._check()
        for start in range(0, max(len(metrics), len(params), len(tags)), 100):
            part = slice(start, start + 100)
            self.client.log_batch(self.run_id, metrics=metrics[part], params=params[part], tags=tags[part])


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
