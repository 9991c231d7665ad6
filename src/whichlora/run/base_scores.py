"""Scores the base model once per model, precision, quantization, prompt version, scoring and test set."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from whichlora.config.plan import Plan, TestSet
from whichlora.config.spec import SPEC_VERSION, canonical_digest
from whichlora.data.mixture import languages_of
from whichlora.evaluation.scores import score
from whichlora.run import description
from whichlora.run.reuse import UNREADABLE, TestScores, download_predictions, write_predictions
from whichlora.tracking.client import work_folder
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker
from whichlora.training import base_cache


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """The base model's metrics on a test set, without their prefix, and the id of the run that logged them."""

    run_id: str
    metrics: dict[str, float]


def base_scores(tracker: Tracker, plan: Plan, known: Mapping[str, TestScores]) -> dict[str, BaseScores]:
    """Return the base model's scores by test set, computing only those that no run has logged yet.

    The scores on each test set are logged in one run of kind `base`.

    Args:
        known: scores of the base model that the caller has already computed, by test set.
    """
    return {name: _base_scores_on(test, plan, tracker, known.get(name)) for name, test in plan.tests.items()}


def _base_scores_on(test: TestSet, plan: Plan, tracker: Tracker, known: TestScores | None) -> BaseScores:
    spec = plan.spec
    identity = {
        "spec_version": SPEC_VERSION,
        "model_digest": spec.model_digest,
        "precision": spec.precision,
        "quantization": spec.quantization,
        "prompt_version": test.task.prompt_version,
        "scoring": str(test.scoring),
        "test_digest": test.digest,
    }
    fingerprint = canonical_digest({"kind": "base", **identity})
    prefix = f"test/{test.role}/"  # also for a task that is not trained, so that runs that train it share the scores
    language = languages_of(test.items)
    name = f"base {language} {test.task.name} {plan.model_name} {fingerprint[:6]}"
    # The lease covers the caller's run only: another machine may be scoring the same base model.
    tracker = replace(tracker, check_lease=None)
    work = work_folder() / fingerprint[:16]
    with tracker.once("base", name, {"fingerprint": fingerprint}, work=work) as attempt:
        if attempt.finished is not None:
            logged = attempt.finished.data.metrics
            metrics = {k.removeprefix(prefix): v for k, v in logged.items() if k.startswith(prefix)}
            return BaseScores(run_id=attempt.run_id, metrics=metrics)
        log = attempt.log
        log.params(
            {
                "model": spec.model,
                "task": test.task.name,
                "language": language,
                "test_size": len(test.items),
                **identity,
            }
        )
        scores = known or _score_base(plan, test, name=f"base {language}")
        log.metrics({f"{prefix}{key}": value for key, value in scores.metrics.items()})
        _log_predictions(scores, test, log)
        log.describe(description.base(test, plan.model_name, scores.metrics))
        return BaseScores(run_id=attempt.run_id, metrics=dict(scores.metrics))


def base_predictions(tracker: Tracker, plan: Plan, name: str, run_id: str, scratch: Path) -> pd.DataFrame:
    """Return the base model's predictions for the test set `name` that the run `run_id` logged.

    If they are missing or damaged, the base model is scored again, and they are logged again.
    """
    test = plan.tests[name]
    try:
        return download_predictions(tracker, run_id, test.role, scratch)
    except UNREADABLE as error:
        print(f"warning: {error}: the base model is scored again.", file=sys.stderr)
    scores = _score_base(plan, test, name=f"base {languages_of(test.items)}")
    _log_predictions(scores, test, RunLog(tracker.client, run_id))
    return scores.predictions


def _log_predictions(scores: TestScores, test: TestSet, log: RunLog) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        write_predictions(scores.predictions, Path(scratch) / f"{test.role}.parquet")
        log.artifacts(Path(scratch), "predictions")


def _score_base(plan: Plan, test: TestSet, *, name: str) -> TestScores:
    model = base_cache.checkout(plan)
    scores = score(model, plan.encoder(test.task), test.items, scoring=test.scoring, name=name)
    base_cache.give_back(model, plan)
    return TestScores(metrics=scores.metrics, predictions=scores.frame())
