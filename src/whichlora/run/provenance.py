"""Logs the spec, the task, package versions and datasets of a run before it starts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from whichlora import __version__
from whichlora.caller import given_path
from whichlora.config.plan import Plan
from whichlora.config.spec import NO_SOURCE, TASK_FILE, TASK_OPTION
from whichlora.data.general_text import UDHR
from whichlora.data.mixture import texts_digest
from whichlora.data.targets import target_languages
from whichlora.data.tasks import Task
from whichlora.models.packaged import CATALOGUE
from whichlora.tracking.run_log import RunLog
from whichlora.variants import provider

VERSIONED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "mlflow", "babel")


def log_provenance(plan: Plan, log: RunLog) -> None:
    """Log the spec as params and as `spec.json`, what no adapter reaches, the package versions, and the datasets.

    Of the task are logged what the analysis needs (the languages and the headline metric), and for a user's own the
    option `task` and the file with the declaration, `task.yaml`. None of these is in the fingerprint.

    The version of the package that declares a variant from outside the catalogue is logged, but is not part of the
    fingerprint: a finished run counts as done after an update of that package too.
    """
    spec = plan.spec
    fields = spec.to_dict()
    versions = {f"version/{package}": number for package, number in package_versions(plan).items()}
    left_out = {"not_adapted": plan.not_adapted} if plan.not_adapted else {}
    place = {"model_revision": plan.source.revision or spec.model_digest, "threads": torch.get_num_threads()}
    log.params({**fields, **_task_params(plan), **left_out, **versions, **place, **_text_params(plan)})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "spec.json"
        path.write_text(json.dumps({**spec.identity, "fingerprint": spec.fingerprint}, indent=2), encoding="utf-8")
        if plan.task.yaml:
            (Path(scratch) / TASK_FILE).write_text(plan.task.yaml, encoding="utf-8")
        log.artifacts(Path(scratch))
    chat = plan.model.chat(plan.task)
    splits = {"train": (plan.task, plan.mixture.train, spec.train_digest)}
    for name, test in plan.tests.items():
        splits[f"test/{name}"] = (test.task, test.items, test.digest)
    for role, items in plan.mixture.validation.items():
        if items:
            splits[f"validation/{role}"] = (
                plan.task,
                items,
                texts_digest(plan.task, items, chat),
            )
    for name, text in plan.texts.items():
        read = {} if text.origin == UDHR else {text.origin: text.digest}
        source = json.dumps({"text": text.origin, "read": read})
        counts = {"num_rows": len(text.blocks), "languages": [name]}
        context = f"forgetting/{name}"
        log.dataset(
            context=context,
            name=UDHR if not read else "text",
            digest=text.digest,
            source=source,
            profile=json.dumps(counts),
        )
    for context, (task, items, digest) in splits.items():
        languages = sorted({item.language for item in items})
        counts = {"num_rows": len(items), "languages": languages}
        source = _origin(plan, task, context, languages)
        log.dataset(context=context, name=task.name, digest=digest, source=source, profile=json.dumps(counts))
    if spec.model in CATALOGUE and plan.task.synthetic:
        log.tags({"synthetic": "true"})


def package_versions(plan: Plan) -> dict[str, str]:
    """Return the versions of the packages that matter for a run, by name; `none` for one that is not installed."""
    versions = {package: _version(package) for package in VERSIONED} | {"whichlora": __version__}
    if package := provider(plan.spec.variant):
        versions[package.name] = package.version
    return versions


def _task_params(plan: Plan) -> dict[str, str]:
    task, given = plan.task, plan.options.task
    return {
        "source_language": task.source or NO_SOURCE,
        "target_languages": ",".join(target_languages(task, plan.spec.language)),
        "headline": task.headline,
        **({} if given == task.name else {TASK_OPTION: given}),
    }


def _text_params(plan: Plan) -> dict[str, str]:
    """Return the option `forgetting` of a run that measures it."""
    return {"forgetting": plan.options.forgetting} if plan.texts else {}


def _origin(plan: Plan, task: Task, context: str, languages: Sequence[str]) -> str:
    """Return where the items of a data set come from, as JSON with the files and their SHA-256, or in words."""
    if task.synthetic:
        return "generated from CLDR names"
    split, data_dir = context.partition("/")[0], plan.data_dir_of(task)
    found = [task.origin(code, split, data_dir=data_dir) for code in languages]  # type: ignore[arg-type]
    files = {path: digest for origins in found for path, digest in origins.items()}
    given = {} if data_dir is None else {"data_dir": str(given_path(data_dir).absolute())}
    return json.dumps({"task": task.name, **given, "read": files})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # bitsandbytes is needed for 4-bit weights only, and not available for every system
        return "none"
