"""What is probed: the model of a finished run, or a base model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.config.options import AUTO, MAIN, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.config.spec import RunSpec
from whichlora.data.mixture import languages_of
from whichlora.data.tasks import PROMPTED
from whichlora.errors import OptionError, choose
from whichlora.training import base_cache
from whichlora.variants import get_variant

if TYPE_CHECKING:
    from whichlora.probing.options import Request


@dataclass(frozen=True, kw_only=True)
class ProbedModel:
    """A model to probe, and the items to read with it.

    Attributes:
        plan: its spec and variant are the run's, or say that nothing is trained; its test items are those to read.
        run_id: of the run; None for a base model.
        name: short, for progress bars and figures.
    """

    plan: Plan
    run_id: str | None
    name: str
    client: MlflowClient

    @property
    def language(self) -> str:
        """The target language of the items; several are joined by "+"."""
        return languages_of(self.plan.tests["tl"].items)

    def adapter(self, work: Path) -> Path:
        """Fetch the run's adapter into `work` and return its folder; for the variant `full` that of the model.

        Raises:
            OptionError: the run has none any more.
        """
        assert self.run_id is not None
        shutil.rmtree(work / "adapter", ignore_errors=True)  # what a killed probe had fetched of it
        work.mkdir(parents=True, exist_ok=True)
        try:
            return Path(self.client.download_artifacts(self.run_id, "adapter", str(work)))
        except (MlflowException, OSError) as error:
            raise OptionError("run_id", self.run_id, "its adapter is not among its artifacts any more") from error

    @contextmanager
    def model(self, work: Path) -> Iterator[Any]:
        """Give the model, in eval mode."""
        if not self.plan.variant.trains:
            model = base_cache.checkout(self.plan)
            yield model.eval()
            base_cache.give_back(model, self.plan)
        else:
            with base_cache.with_saved_adapter(self.plan, self.adapter(work)) as reloaded:
                yield reloaded.eval()


def find(request: Request, client: MlflowClient) -> ProbedModel:
    """Return what a request asks for. The weights are not loaded yet.

    Raises:
        OptionError: there is no such run, it has no model to probe, or an option does not fit it.
    """
    if request.run_id is None:
        assert request.model is not None
        plan = _plan(request, {"model": request.model})
        return ProbedModel(plan=plan, run_id=None, name=f"{request.model} (base model)", client=client)
    spec = spec_of(client, "run_id", request.run_id)
    kept = ("model", "task", "difficulty", "language", "prompt_language", "precision", "quantization")
    of_run = {name: str(getattr(spec, name)) for name in kept}
    if request.task in (None, spec.task) and spec.test_size is not None:
        of_run["test_size"] = str(spec.test_size)
    plan = _plan(request, of_run)
    if plan.source.digest != spec.model_digest:
        raise OptionError("run_id", request.run_id, f"its base model {spec.model} is another one here")
    same_items = (request.task, request.language, request.items) == (None, None, None)
    if request.reads_items and same_items and plan.spec.test_digests["tl"] != spec.test_digests["tl"]:
        raise OptionError("data_dir", request.data_dir or AUTO, "has other test items than the run was scored on")
    plan = replace(plan, spec=spec, variant=get_variant(spec.variant))
    return ProbedModel(plan=plan, run_id=request.run_id, name=plan.name, client=client)


def find_other(request: Request, subject: ProbedModel, against: str) -> ProbedModel:
    """Return the run of this id, or for "base" the base model, to compare a subject with.

    Raises:
        OptionError: there is none, or it has another base model.
    """
    if against == "base":
        spec = subject.plan.spec
        base = replace(request, run_id=None, model=spec.model, precision=spec.precision, quantization=spec.quantization)
        return find(base, subject.client)
    spec_of(subject.client, "against", against)
    other = find(replace(request, run_id=against), subject.client)
    if other.plan.source.digest != subject.plan.source.digest:
        raise OptionError("against", against, f"has another base model, {other.plan.spec.model}")
    return other


def spec_of(client: MlflowClient, option: str, run_id: str) -> RunSpec:
    """Return the spec of a finished run that the option `option` names.

    Raises:
        OptionError: there is none, or another version wrote it.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise OptionError(option, run_id, "must be the id of a run in the tracking database") from error
    kind = run.data.tags.get("whichlora.kind")
    if kind != "run" or run.info.status != "FINISHED":
        allowed = f"must be a finished run of kind run, but is {run.info.status.lower()} and of kind {kind}"
        raise OptionError(option, run_id, allowed)
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(client.download_artifacts(run_id, "spec.json", scratch)).read_text(encoding="utf-8")
    try:
        return RunSpec.from_dict(json.loads(text))
    except ValueError as error:
        raise OptionError(option, run_id, f"another version of whichlora made it ({error})") from error


def _plan(request: Request, known: dict[str, str]) -> Plan:
    """Resolve a plan that trains nothing; what the request says goes before what is `known`."""
    texts = {name: default for name, (default, _) in MAIN.items()} | known
    texts |= {"variant": "none", "tl_ratio": "0", "train_size": "1", "validation_size": "1"}
    if request.reads_items:
        choose("task", request.task or texts["task"], PROMPTED)
        if request.task:
            texts |= {
                "task": request.task,
                "difficulty": AUTO if request.task != known.get("task") else texts["difficulty"],
            }
        if request.language:
            texts["language"] = request.language
        if request.items:
            texts["test_size"] = str(request.items)
    else:  # then any task will do, and its data need not be here
        texts |= {name: MAIN[name][0] for name in ("task", "difficulty", "language", "test_size", "prompt_language")}
    given = {"data_dir": request.data_dir, "precision": request.precision, "quantization": request.quantization}
    texts |= {name: text for name, text in given.items() if text is not None}
    try:
        return resolve(parse_options(texts))
    except OptionError as error:
        if error.option == "test_size":
            raise OptionError("items", error.value, error.allowed) from error
        raise
