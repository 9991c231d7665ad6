"""The base model's own scores, once for each model, precision, prompt, scoring and test set."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from whichlora.config import retention
from whichlora.config.plan import encoder_of
from whichlora.config.spec import SPEC_VERSION, canonical_digest
from whichlora.data.mixture import languages_of
from whichlora.evaluation.scoring import score
from whichlora.run.reuse import TestScores
from whichlora.tracking.client import work_folder
from whichlora.tracking.runs import Tracker
from whichlora.training import base_cache

if TYPE_CHECKING:
    from whichlora.config.plan import Plan


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """The run that holds the base model's scores on a test set, and its metrics without their prefix."""

    run_id: str
    metrics: dict[str, float]


def base_scores(tracker: Tracker, plan: Plan, known: Mapping[str, TestScores]) -> dict[str, BaseScores]:
    """Return the base model's test scores by role, scoring it only where no run holds them yet.

    Each test set is a run of kind `base`. `known` are scores of the base model by role that the caller has already.
    """
    return {role: _one(tracker, plan, role, known.get(role)) for role in plan.mixture.test}


def _one(tracker: Tracker, plan: Plan, role: str, known: TestScores | None) -> BaseScores:
    spec = plan.spec
    task, scoring = plan.scorer(role)
    identity = {
        "spec_version": SPEC_VERSION,
        "model_digest": spec.model_digest,
        "precision": spec.precision,
        "quantization": spec.quantization,
        "prompt_version": task.prompt_version,
        "scoring": scoring,
        "test_digest": spec.test_digests[role],
    }
    fingerprint = canonical_digest({"kind": "base", **identity})
    lock = work_folder() / f"{fingerprint[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    own = role.removeprefix(retention.ROLES)  # a run that trains the task would have it there
    prefix = f"test/{own}/"
    with FileLock(lock):
        run = tracker.find("base", status="FINISHED", fingerprint=fingerprint)
        if run is not None:
            found = {k.removeprefix(prefix): v for k, v in run.data.metrics.items() if k.startswith(prefix)}
            return BaseScores(run_id=run.info.run_id, metrics=found)
        items = plan.mixture.test[role]
        language = languages_of(items)
        name = f"base {spec.model} {task.name} {language}"
        # A claim is for the run, not for this: on another machine another run may be scoring the same base.
        log = replace(tracker, claim=None).open("base", name, {"fingerprint": fingerprint})
        with log.guarded():
            log.params(
                {"model": spec.model, "task": task.name, "language": language, "test_size": len(items), **identity}
            )
            if known is None:
                model = base_cache.checkout(plan)
                encoder = encoder_of(plan, task)
                scores = score(model, encoder, items, scoring=scoring, name=f"base {language}")
                base_cache.give_back(model, plan)
                known = TestScores(metrics=scores.metrics, predictions=scores.frame())
            log.metrics({f"{prefix}{key}": value for key, value in known.metrics.items()})
            with tempfile.TemporaryDirectory() as scratch:
                known.predictions.to_parquet(Path(scratch) / f"{own}.parquet")
                log.artifacts(Path(scratch), "predictions")
        return BaseScores(run_id=log.run_id, metrics=dict(known.metrics))
