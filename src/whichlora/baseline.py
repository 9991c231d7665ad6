"""The base model's own scores, once for each model, precision, prompt, scoring and test set."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from whichlora import bases
from whichlora.encoding import Encoder
from whichlora.evaluation import score
from whichlora.mixture import spoken
from whichlora.sharing import Known
from whichlora.spec import SPEC_VERSION, canonical_digest
from whichlora.tracking import Tracker, work_folder

if TYPE_CHECKING:
    from whichlora.resolve import Plan


def base_metrics(
    tracker: Tracker, plan: Plan, encoder: Encoder, known: Mapping[str, Known]
) -> dict[str, dict[str, float]]:
    """Return the base model's test metrics by role (`en`, `tl`), scoring it only where no run holds them yet.

    Each test set is a run of kind `base`. `known` are scores of the base model by role that the caller has already.
    """
    return {role: _one(tracker, plan, encoder, role, known.get(role)) for role in ("en", "tl")}


def _one(tracker: Tracker, plan: Plan, encoder: Encoder, role: str, known: Known | None) -> dict[str, float]:
    spec = plan.spec
    identity = {
        "spec_version": SPEC_VERSION,
        "model_digest": spec.model_digest,
        "precision": spec.precision,
        "quantization": spec.quantization,
        "prompt_version": spec.prompt_version,
        "scoring": spec.scoring,
        "test_digest": spec.test_digests[role],
    }
    fingerprint = canonical_digest({"kind": "base", **identity})
    lock = work_folder() / f"{fingerprint[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"test/{role}/"
    with FileLock(lock):
        run = tracker.find("base", status="FINISHED", fingerprint=fingerprint)
        if run is not None:
            return {k.removeprefix(prefix): v for k, v in run.data.metrics.items() if k.startswith(prefix)}
        items = plan.mixture.test[role]
        language = spoken(items)
        name = f"base {spec.model} {spec.task} {language}"
        # A claim is for the run, not for this: on another machine another run may be scoring the same base.
        log = replace(tracker, claim=None).open("base", name, {"fingerprint": fingerprint})
        with log.guarded():
            log.params(
                {"model": spec.model, "task": spec.task, "language": language, "test_size": len(items), **identity}
            )
            if known is None:
                model = bases.take(plan)
                scores = score(model, encoder, items, scoring=spec.scoring, name=f"base {language}")
                bases.keep(model, plan)
                known = Known(metrics=scores.metrics, predictions=scores.frame())
            log.metrics({f"{prefix}{key}": value for key, value in known.metrics.items()})
            with tempfile.TemporaryDirectory() as scratch:
                known.predictions.to_parquet(Path(scratch) / f"{role}.parquet")
                log.artifacts(Path(scratch), "predictions")
        return dict(known.metrics)
