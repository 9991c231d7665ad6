"""Logs params, metrics, tags, datasets and artifacts to one MLflow run, and marks how it ended."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from whichlora import termination
from whichlora.errors import LostLeaseError, NonFiniteError, PrunedError
from whichlora.masking import masked
from whichlora.tracking.markdown import NOTE_LIMIT, escaped, paragraphs

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
PARAM_LIMIT = 6000
"""Characters to which params are cut; MLflow's limit."""


@dataclass(frozen=True)
class RunLog:
    """Logs to one run; `check_lease` is that of the `Tracker`."""

    client: MlflowClient
    run_id: str
    check_lease: Callable[[], None] | None = None

    @contextmanager
    def guarded(self, about: str = "") -> Iterator[RunLog]:
        """Mark the run FINISHED at the end of the block or when it is pruned, else FAILED or KILLED with an error tag.

        The run's description says so too, followed by `about`; the block describes what it has finished.

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
                self.describe(paragraphs(f"**Pruned** {escaped(pruned)}.", about))
                self.client.set_terminated(self.run_id, "FINISHED")
            raise
        except BaseException as error:
            with termination.deferred():
                self.check()  # do not mark a run that another process has taken over or finished
                text = masked(f"{type(error).__name__}: {error}")[:4000]
                # Some libraries replace the exception of a signal by one of their own.
                killed = isinstance(error, KeyboardInterrupt) or termination.requested()
                status = "KILLED" if killed else "FAILED"
                self.client.set_tag(self.run_id, "whichlora.error", text)
                self.describe(paragraphs(_ended("Interrupted" if killed else "Failed", text), about))
                self.client.set_terminated(self.run_id, status)
            raise
        with termination.deferred():
            self.check()
            if "whichlora.error" in self.client.get_run(self.run_id).data.tags:
                self.client.delete_tag(self.run_id, "whichlora.error")  # set by an earlier attempt
            self.client.set_terminated(self.run_id, "FINISHED")

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params, with lists joined by commas and mappings as JSON.

        Params cannot be changed. If an earlier attempt at the run logged another value (another version of a package,
        another path to the same model), that value remains and the new one becomes the tag `whichlora.now/<param>`.
        """
        texts = {key: masked(param_text(value))[:PARAM_LIMIT] for key, value in values.items()}
        logged = self.client.get_run(self.run_id).data.params
        self._batches(params=[Param(key, text) for key, text in texts.items() if key not in logged])
        self.tags({f"now/{key}": text for key, text in texts.items() if logged.get(key, text) != text})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step.

        Of several values at a step MLflow returns that with the latest time, so the times follow those of values that a
        machine whose clock is ahead has logged.

        Raises:
            NonFiniteError: One of them is NaN or infinite; none is logged. Leave out what is not defined.
        """
        check_metrics(values.items())
        logged = self.client.get_run(self.run_id).data._metric_objs  # the public dictionary has no times
        now = max([int(time.time() * 1000), *(m.timestamp + 1 for m in logged if m.key in values)])
        self._batches(metrics=[Metric(key, float(value), now, step) for key, value in values.items()])

    def metrics_of_model(self, names: Collection[str], model_id: str) -> None:
        """Log metrics of the run as those of its model too; with their times, so that they are no new points."""
        logged = self.client.get_run(self.run_id).data._metric_objs  # the public dictionary has no times
        points = [Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id) for m in logged if m.key in names]
        self._batches(metrics=points)

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

    def last_step(self, prefix: str) -> int:
        """Return the last step of the metrics whose names begin with `prefix`; -1 if there are none."""
        latest = self.client.get_run(self.run_id).data._metric_objs  # the public dictionary has no steps
        return max((metric.step for metric in latest if metric.key.startswith(prefix)), default=-1)

    def points(self, metrics: Sequence[Metric]) -> None:
        """Log metrics that have their own steps and times; those that are logged already are not repeated."""
        self._batches(metrics=metrics)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, adding the prefix `whichlora.` to their keys."""
        self._batches(tags=[RunTag(f"whichlora.{key}", masked(value)) for key, value in values.items()])

    def describe(self, text: str) -> None:
        """Set the run's description, in Markdown."""
        self._batches(tags=[RunTag(MLFLOW_RUN_NOTE, masked(text)[:NOTE_LIMIT])])

    def dataset(self, *, context: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a dataset input. `profile` is JSON with its size."""
        self.check()
        entity = Dataset(name=name, digest=digest[:36], source_type="local", source=source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset=entity, tags=[tag])])

    def artifacts(self, folder: Path, artifact_path: str | None = None) -> None:
        """Log the contents of a folder as artifacts under `artifact_path`."""
        self.check()
        self.client.log_artifacts(self.run_id, str(folder), artifact_path)

    def delete_artifacts(self, artifact_path: str) -> None:
        """Delete the artifacts under `artifact_path`, if any; MLflow's client has no such method."""
        self.check()
        uri = self.client.get_run(self.run_id).info.artifact_uri
        repository: Any = get_artifact_repository(uri, tracking_uri=self.client.tracking_uri)
        repository.delete_artifacts(artifact_path)

    def check(self) -> None:
        """Raise `LostLeaseError` if the work has passed to another process."""
        if self.check_lease is not None:
            self.check_lease()

    def _batches(
        self, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self.check()
        for start in range(0, max(len(metrics), len(params), len(tags)), 100):
            part = slice(start, start + 100)
            self.client.log_batch(self.run_id, metrics=metrics[part], params=params[part], tags=tags[part])


def _ended(how: str, error: str) -> str:
    """Return the first paragraph of the description of a run without a result."""
    return (
        f"**{how}:** {escaped(error[:1000])}\n\nThe same command resumes it from its last checkpoint, if there is one."
    )


def check_metrics(values: Iterable[tuple[str, float]]) -> None:
    """Check that no metric is NaN or infinite.

    Raises:
        NonFiniteError: One is; the message names the first.
    """
    for name, value in values:
        if not math.isfinite(value):
            raise NonFiniteError(f"the metric {name} is {value}")


def param_text(value: Any) -> str:
    """Return the value of a param as it is logged."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
