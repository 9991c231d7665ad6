"""Carries out one run, from a plan to logged results."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from whichlora.announcements import announce
from whichlora.config.plan import Plan
from whichlora.config.spec import canonical_digest
from whichlora.data.metric_names import headline_first
from whichlora.data.mixture import languages_of
from whichlora.data.tasks import Item, PairTask, Task
from whichlora.errors import PrunedError
from whichlora.evaluation import word_alignment
from whichlora.evaluation.cross_entropy import CrossEntropy
from whichlora.evaluation.scores import Scores, score
from whichlora.evaluation.scoring_methods import Scoring
from whichlora.run import description, forgetting, reuse, seed_summary
from whichlora.run.base_scores import BaseScores, base_predictions, base_scores
from whichlora.run.collapse import collapse_metrics
from whichlora.run.companions import write_companions, write_needs
from whichlora.run.costs import InferenceCosts, cost_params, training_costs
from whichlora.run.metric_guide import publish_page
from whichlora.run.provenance import log_provenance, package_versions
from whichlora.run.reload_check import check_reload, check_reload_of_some
from whichlora.run.reuse import TestScores
from whichlora.run.set_metrics import metrics_of_test_set
from whichlora.run.summary import Result
from whichlora.serving.logged_model import log_model
from whichlora.tracking.logged_models import model_uri
from whichlora.tracking.model_files import ADAPTER
from whichlora.tracking.run_log import RunLog, check_metrics
from whichlora.tracking.runs import Tracker, already_done, work_of
from whichlora.training import base_cache
from whichlora.training.fit import PruningReports, fit
from whichlora.variants.colors import RUN_COLOR, method_color


def run(plan: Plan, tracker: Tracker) -> Result:
    """Carry out a plan, or return the result of a finished run with the same fingerprint.

    A killed run is resumed. If another process is working on the same fingerprint, this one waits.

    Raises:
        ProofError: The run did not train what its spec says.
        NonFiniteError: A loss, gradient, trained tensor, logit or metric is not finite.
    """
    result = _tracked("run", plan.name, plan, tracker, _train_and_score)
    seed_summary.update(plan, tracker, result.run_id)
    return result


def trial(
    plan: Plan,
    tracker: Tracker,
    *,
    tags: Mapping[str, str] | None = None,
    reports: PruningReports | None = None,
    keep: Callable[[Mapping[str, float]], bool] = lambda metrics: True,
) -> Result:
    """Train and validate a plan without scoring its test items, as a run of kind `trial`.

    The result of a finished trial with the same fingerprint and tags is returned; a killed trial is resumed. The
    adapter of a pruned trial is logged as it was then, without further checks, if `reports` saves it.

    Args:
        keep: called with the metrics; returns whether to check and log the adapter.

    Raises:
        ProofError: The trial did not train what its spec says.
        NonFiniteError: A loss, gradient, trained tensor, logit or metric is not finite.
        PrunedError: `reports` stopped it.
    """

    def job(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
        folder = work / "adapter"
        try:
            record = fit(plan, log, work, reports=reports)
        except PrunedError:
            if folder.is_dir():
                write_needs(plan, folder)
                _log_adapter(log, folder)
            raise
        costs = training_costs(plan, record.metrics, folder)
        metrics = headline_first({**costs, **collapse_metrics(record)}, plan.task.headline)
        check_metrics(metrics.items())
        if keep(metrics):
            check_reload_of_some(plan, folder, record.predicted)
            write_needs(plan, folder)
            _log_adapter(log, folder)
        log.metrics(metrics)
        return metrics

    return _tracked("trial", plan.trial_name((tags or {}).get("trial")), plan, tracker, job, tags or {})


_Job = Callable[[Plan, Tracker, RunLog, Path], dict[str, float]]
"""Does the work of a run in its work folder, logs its metrics and returns them."""


def _tracked(
    kind: str, name: str, plan: Plan, tracker: Tracker, job: _Job, extra_tags: Mapping[str, str] | None = None
) -> Result:
    """Run `job` once, as one MLflow run identified by the plan's fingerprint and `extra_tags`."""
    spec = plan.spec
    tags = {"fingerprint": spec.fingerprint, "training_fingerprint": spec.training_fingerprint, **(extra_tags or {})}
    # A trial belongs to its study, so the study's tags are part of the identity.
    identity = canonical_digest([spec.training_fingerprint, dict(extra_tags)]) if extra_tags else None
    work = work_of(kind, identity or spec.training_fingerprint)
    with tracker.once(kind, name, tags, work=work, about=description.about(plan, kind)) as attempt:
        if attempt.finished is not None:
            return _already_done(kind, attempt.finished)
        log_provenance(plan, attempt.log)
        attempt.log.client.set_tag(attempt.run_id, RUN_COLOR, method_color(spec.variant, spec.arm))
        publish_page(plan, tracker, kind)
        metrics = job(plan, tracker, attempt.log, work)
        uri = None if kind == "trial" else model_uri(tracker.client, attempt.run_id)
        attempt.log.describe(description.finished(kind, plan, metrics, attempt.run_id, tracker.experiment, model=uri))
        return Result(run_id=attempt.run_id, metrics=metrics)


def _already_done(kind: str, finished: Run) -> Result:
    if "whichlora.pruned" in finished.data.tags:
        raise PrunedError(finished.data.tags["whichlora.pruned"])
    print(already_done(kind, finished), file=sys.stderr)  # callers of `trial` print a table to stdout
    return Result(run_id=finished.info.run_id, metrics=finished.data.metrics)


def _train_and_score(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    """Train or reuse the adapter, score it and the base model, and log the results; return the run's metrics."""
    metrics: dict[str, float] = {}
    known: dict[str, TestScores] = {}
    texts: dict[str, CrossEntropy] = {}
    inference = InferenceCosts(plan)
    log.params(cost_params(plan))
    if plan.variant.trains:
        record = fit(plan, log, work, reuse=lambda: reuse.reuse_adapter(plan, tracker, work))
        metrics |= training_costs(plan, record.metrics, work / "adapter")
        if record.source is not None:
            log.tags({"adapter_of": record.source})
            known = reuse.reusable_test_scores(plan, tracker, record.source, work)
            texts = forgetting.known(plan, tracker.client.get_run(record.source))
        with base_cache.saved_model(plan, work / "adapter", measure=inference.measure) as model:
            validation, test = _score_model(plan, model, known)
            texts |= forgetting.measure(plan, model, known=texts)
        check_reload(plan, validation, record.predicted)
    else:
        model = base_cache.checkout(plan)
        inference.measure(model, merged=False)
        validation, test = _score_model(plan, model, known)
        base_cache.give_back(model, plan)
    del model  # frees memory before another copy is loaded for the base model's scores
    metrics |= inference.metrics
    metrics |= forgetting.forgetting_metrics(plan, tracker, texts if plan.variant.trains else None)
    base = base_scores(tracker, plan, known={} if plan.variant.trains else test)
    announce("Computing intervals and logging the results.")
    for role in validation:
        metrics |= {f"validation/{role}/{k}": v for k, v in validation[role].metrics.items()}
    for name, scores in test.items():
        metrics |= metrics_of_test_set(plan, name, scores, base[name].metrics)
    _log_predictions(test, log, work / "predictions")
    if isinstance(plan.task, PairTask) and plan.variant.trains:
        metrics |= _paired_metrics(plan, tracker, log, work, test, base)
    check_metrics(metrics.items())
    metrics = headline_first(metrics, plan.task.headline)
    log.metrics(metrics)
    if plan.variant.trains:
        write_companions(plan, log, metrics, work / "adapter")
        _log_adapter(log, work / "adapter")  # only now has it passed every check
    log_model(plan, log, metrics, folder=work / "adapter", versions=package_versions(plan))
    return metrics


def _log_adapter(log: RunLog, folder: Path) -> None:
    """Log the adapter of a trial, or the model of `full`; the tag comes first, so that none with an adapter lacks it.

    `tuning.kept_adapters` finds the trials by the tag.
    """
    log.tags({"adapter": "logged"})
    log.artifacts(folder, ADAPTER)


def _score_model(
    plan: Plan, model: Any, known: Mapping[str, TestScores]
) -> tuple[dict[str, Scores], dict[str, TestScores]]:
    """Return the validation scores by role and the scores on each test set, scoring only test sets not in `known`."""

    def score_split(split: str, task: Task, items: Sequence[Item], scoring: Scoring) -> Scores:
        return score(model, plan.encoder(task), items, scoring=scoring, name=f"{split} {languages_of(items)}")

    validation = {
        role: score_split("validation", plan.task, items, plan.scoring)
        for role, items in plan.mixture.validation.items()
        if items
    }
    tests = dict(known)
    for name, test in plan.tests.items():
        if name not in known:
            scores = score_split("test", test.task, test.items, test.scoring)
            tests[name] = TestScores(metrics=scores.metrics, predictions=scores.frame())
    return validation, tests


def _log_predictions(tests: Mapping[str, TestScores], log: RunLog, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, scores in tests.items():
        reuse.write_predictions(scores.predictions, folder / f"{name}.parquet")
    log.artifacts(folder, "predictions")


def _paired_metrics(
    plan: Plan,
    tracker: Tracker,
    log: RunLog,
    work: Path,
    test: Mapping[str, TestScores],
    base: Mapping[str, BaseScores],
) -> dict[str, float]:
    """Log `pairs.parquet` and return the metrics of the paired tests of the trained model against the base model."""
    items = {name: test.items for name, test in plan.tests.items() if test.trained}
    before = {name: base_predictions(tracker, plan, name, base[name].run_id, work / "base") for name in items}
    table = word_alignment.pairs_table(items, before, {name: test[name].predictions for name in items})
    folder = work / "pairs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table.to_parquet(folder / "pairs.parquet", index=False)
    log.artifacts(folder)
    return word_alignment.paired_metrics(table)
