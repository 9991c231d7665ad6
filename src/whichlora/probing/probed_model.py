"""Finds the model to probe: that of a finished run, or a base model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from whichlora.config.options import AUTO, RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.config.spec import NO_SOURCE, TASK_OPTION, RunSpec
from whichlora.data.chat import NONE
from whichlora.data.mixture import languages_of
from whichlora.data.tasks import task_class
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError
from whichlora.probing import probed_task
from whichlora.tracking.trained import adapter_files, finished_run
from whichlora.training import base_cache
from whichlora.variants import get_variant

if TYPE_CHECKING:
    from whichlora.probing.request import Request


@dataclass(frozen=True, kw_only=True)
class ProbedModel:
    """A model to probe, and the items to read with it.

    Attributes:
        plan: the run's spec and variant, or a plan without training for a base model; its test items are those to read.
        run_id: the run whose model is probed; None for a base model.
        name: short name for progress bars and figures.
        client: client of the tracking database that holds the run; None if no run is needed.
    """

    plan: Plan
    run_id: str | None
    name: str
    client: MlflowClient | None

    @property
    def language(self) -> str:
        """The target language of the items; several are joined with "+"."""
        return languages_of(self.plan.tests["tl"].items)

    @property
    def other_source(self) -> dict[str, str]:
        """The task's source language by name, as part of a probe's identity; empty if it is English, as a rule."""
        source = self.plan.task.source
        return {} if source == SOURCE_LANGUAGE else {"source_language": source or NO_SOURCE}

    def adapter(self, work: Path) -> Path:
        """Return the folder with the run's adapter, or its whole model; a copy from a server in `work`.

        Raises:
            OptionError: the adapter is no longer among the run's artifacts.
        """
        assert self.run_id is not None
        assert self.client is not None
        return adapter_files(self.client, self.client.get_run(self.run_id), work)

    @contextmanager
    def loaded(self, work: Path) -> Iterator[Any]:
        """Load the model and yield it in eval mode."""
        if not self.plan.variant.trains:
            model = base_cache.checkout(self.plan)
            yield model.eval()
            base_cache.give_back(model, self.plan)
        else:
            with base_cache.saved_model(self.plan, self.adapter(work)) as reloaded:
                yield reloaded.eval()


def find(request: Request, client: MlflowClient | None) -> ProbedModel:
    """Return the model that a request selects, without loading its weights.

    Raises:
        OptionError: there is no such run, the run cannot be probed, or an option does not fit it.
    """
    if request.run_id is None:
        assert request.model is not None
        plan = _plan(request, {"model": request.model})
        return ProbedModel(plan=plan, run_id=None, name=f"{request.model} (base model)", client=client)
    assert client is not None
    run, spec = _trained(client, "run_id", request.run_id)
    request = replace(request, run_id=run.info.run_id)
    copied = ("model", "difficulty", "language", "prompt_language", "precision", "quantization")
    run_options = {name: str(getattr(spec, name)) for name in copied} | {"task": spec.task}
    run_options["chat_template"] = NONE if spec.chat_template == NONE else AUTO
    given = run.data.params.get(TASK_OPTION)
    if given is not None and request.reads_items and request.task is None:
        run_options |= probed_task.options_of(client, request, spec, given)
    if request.task in (None, spec.task) and spec.test_size is not None:
        run_options["test_size"] = str(spec.test_size)
    plan = _plan(request, run_options)
    if plan.source.digest != spec.model_digest:
        raise OptionError("run_id", request.run_id, f"its base model {spec.model} differs from the one found here")
    if request.reads_items and request.chat_template is None and plan.spec.chat_template != spec.chat_template:
        allowed = f"the run used another chat template ({spec.chat_template}); give the file with it"
        raise OptionError("chat_template", AUTO, allowed)
    same_items = (request.task, request.language, request.items) == (None, None, None)
    if request.reads_items and same_items and plan.spec.test_digests["tl"] != spec.test_digests["tl"]:
        raise OptionError(
            "data_dir", request.data_dir or AUTO, "its test items differ from those that the run was scored on"
        )
    plan = replace(plan, spec=spec, variant=get_variant(spec.variant))
    return ProbedModel(plan=plan, run_id=request.run_id, name=run.info.run_name or plan.name, client=client)


def find_comparison(request: Request, probed: ProbedModel, against: str) -> ProbedModel:
    """Return the model that `probed` is compared with: that of the run `against`, or its base model for "base".

    Raises:
        OptionError: there is no such run, or it has a different base model.
    """
    if against == "base":
        spec = probed.plan.spec
        base = replace(request, run_id=None, model=spec.model, precision=spec.precision, quantization=spec.quantization)
        return find(base, probed.client)
    assert probed.client is not None
    run, _ = _trained(probed.client, "against", against)
    comparison = find(replace(request, run_id=run.info.run_id), probed.client)
    if comparison.plan.source.digest != probed.plan.source.digest:
        raise OptionError("against", against, f"has another base model, {comparison.plan.spec.model}")
    return comparison


def _trained(client: MlflowClient, option: str, text: str) -> tuple[Run, RunSpec]:
    """Return a finished run and its spec; `option` is the option that names the run, for error messages.

    Raises:
        OptionError: there is no such run, or another version of whichlora wrote its spec.
    """
    run = finished_run(client, text, option=option, kinds=("run",))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(client.download_artifacts(run.info.run_id, "spec.json", scratch))
        stored = path.read_text(encoding="utf-8")
    try:
        return run, RunSpec.from_dict(json.loads(stored))
    except ValueError as error:
        advice = "repeat the run with this version, or probe it with that one"
        raise OptionError(option, text, f"was written by another version of whichlora ({error}); {advice}") from error


def _plan(request: Request, defaults: dict[str, str]) -> Plan:
    """Resolve a plan without training; options of the request override `defaults`."""
    texts = {name: default for name, (default, _) in RUN_OPTIONS.items()} | defaults
    texts |= {"variant": "none", "tl_ratio": "0", "train_size": "1", "validation_size": "1"}
    if request.reads_items:
        if task_class(request.task or texts["task"], prompted=True).source is None:
            texts["tl_ratio"] = AUTO
        if request.task:
            texts |= {
                "task": request.task,
                "difficulty": AUTO if request.task != defaults.get("task") else texts["difficulty"],
            }
        if request.language:
            texts["language"] = request.language
        if request.items:
            texts["test_size"] = str(request.items)
    else:  # the task does not matter, and its data may not be available here
        texts |= {
            name: RUN_OPTIONS[name][0] for name in ("task", "difficulty", "language", "test_size", "prompt_language")
        }
    given = ("chat_template", "precision", "quantization", *(["data_dir"] if request.reads_items else []))
    overrides = {name: getattr(request, name) for name in given}
    texts |= {name: text for name, text in overrides.items() if text is not None}
    try:
        return resolve(parse_options(texts))
    except OptionError as error:
        if error.option == "test_size":
            raise OptionError("items", error.value, error.allowed) from error
        raise
