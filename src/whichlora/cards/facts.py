"""Reads what a card says about a run from its params, tags and data sets in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from whichlora.config.spec import NO_SOURCE
from whichlora.data.tasks import TASKS, PairTask
from whichlora.variants import get_variant

_VERSION = "version/"
_HUB = "hub:"
"""Beginning of the name of data that was read from the hub, as `Task.origin` returns it."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Items that a run was trained, validated or scored on.

    Attributes:
        context: `train`, `test/en`, `validation/tl` or the like.
        hub: the data set's id on the hub; None if it came from elsewhere.
        folder: the option `data_dir`; None if there was none.
    """

    context: str
    task: str
    items: int
    languages: tuple[str, ...]
    hub: str | None
    folder: str | None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run as MLflow holds it.

    Attributes:
        kind: `run` or `trial`.
        metrics: those of the run, which may not be logged yet.
        params: as logged, which runs of earlier versions have fewer of.
    """

    run_id: str
    kind: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    data: Mapping[str, DataSet]

    @property
    def variant(self) -> str:
        """The name of the variant."""
        return self.params.get("variant", "unknown")

    @property
    def title(self) -> str:
        """The display name of the variant; its name if the package that declares it is not installed."""
        try:
            return get_variant(self.variant).title
        except ValueError:
            return self.variant

    @property
    def whole_model(self) -> bool:
        """Whether the run trained all weights of the model, so that a whole model was saved and not an adapter."""
        try:
            return get_variant(self.variant).trains_whole_model
        except ValueError:
            return False

    @property
    def headline(self) -> str:
        """The metric that selected the checkpoint."""
        return self.params.get("headline", "f1")

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the source language, if there is one, and of the target languages."""
        source = self.params.get("source_language", "en")
        targets = self.params.get("target_languages") or self.params.get("language", "")
        return tuple(dict.fromkeys(code for code in (source, *targets.split(",")) if code and code != NO_SOURCE))

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that matter, by name."""
        params = self.params.items()
        return {name.removeprefix(_VERSION): text for name, text in params if name.startswith(_VERSION)}

    @property
    def has_prompts(self) -> bool:
        """Whether the task has prompts with an answer, and not pairs of words."""
        task = TASKS.get(self.params.get("task", ""))
        return task is None or not issubclass(task, PairTask)

    @property
    def synthetic(self) -> bool:
        """Whether the items of the task are generated."""
        task = TASKS.get(self.params.get("task", ""))
        return task is not None and task.synthetic


def read_facts(run: Run, metrics: Mapping[str, float] | None = None) -> RunFacts:
    """Return what is known of a run; `metrics` are those that are not logged yet."""
    data = [_data_set(given) for given in (run.inputs.dataset_inputs if run.inputs else ())]
    return RunFacts(
        run_id=run.info.run_id,
        kind=run.data.tags.get("whichlora.kind", "run"),
        params=run.data.params,
        metrics={**run.data.metrics, **(metrics or {})},
        data={found.context: found for found in data},
    )


def _data_set(given: Any) -> DataSet:
    context = next((tag.value for tag in given.tags if tag.key == "mlflow.data.context"), "")
    profile, source = _json(given.dataset.profile), _json(given.dataset.source)
    read = [name.removeprefix(_HUB) for name in source.get("read", {}) if name.startswith(_HUB)]
    return DataSet(
        context=context,
        task=given.dataset.name,
        items=int(profile.get("num_rows", 0)),
        languages=tuple(profile.get("languages", ())),
        hub=read[0].split()[0] if read else None,
        folder=source.get("data_dir"),
    )


def _json(text: str | None) -> dict[str, Any]:
    """Return an object of JSON; empty for other texts, which some sources are."""
    try:
        value = json.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
