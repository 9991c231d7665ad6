"""Logs the spec, package versions and datasets of a run before it starts."""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from whichlora import __version__
from whichlora.config.plan import Plan
from whichlora.data.mixture import texts_digest
from whichlora.models.packaged import MODEL_NAME
from whichlora.tracking.run_log import RunLog
from whichlora.variants import provider

VERSIONED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "mlflow", "babel")


def log_provenance(plan: Plan, log: RunLog) -> None:
    """Log the spec as params and as `spec.json`, what no adapter reaches, the package versions, and the datasets.

    The version of the package that declares a variant from outside the catalogue is logged, but is not part of the
    fingerprint: a finished run counts as done after an update of that package too.
    """
    spec = plan.spec
    fields = spec.to_dict()
    versions = {f"version/{package}": _version(package) for package in VERSIONED} | {"version/whichlora": __version__}
    if package := provider(spec.variant):
        versions[f"version/{package.name}"] = package.version
    left_out = {"not_adapted": plan.not_adapted} if plan.not_adapted else {}
    log.params({**fields, **left_out, **versions, "model_revision": plan.source.revision or spec.model_digest})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "spec.json"
        path.write_text(json.dumps({**fields, "fingerprint": spec.fingerprint}, indent=2), encoding="utf-8")
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
    for context, (task, items, digest) in splits.items():
        counts = {"num_rows": len(items), "languages": sorted({item.language for item in items})}
        origin = "generated from CLDR names" if task.synthetic else task.name
        log.dataset(context=context, name=task.name, digest=digest, source=origin, profile=json.dumps(counts))
    if spec.model == MODEL_NAME and plan.task.synthetic:
        log.tags({"synthetic": "true"})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # bitsandbytes is needed for 4-bit weights only, and not available for every system
        return "none"
