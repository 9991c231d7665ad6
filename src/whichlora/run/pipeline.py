"""One run, from a plan to a tracked result: read this first."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.config.plan import run_name
from whichlora.errors import ProofError, PrunedError
from whichlora.run.summary import Result

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.data.tasks import Item
    from whichlora.evaluation.scoring import Scores
    from whichlora.run.base_scores import BaseScores
    from whichlora.run.reuse import TestScores
    from whichlora.tracking.runs import RunLog, Tracker
    from whichlora.training.fit import PruningReports


NEAR = {"fp32": 0.0, "bf16": 0.2}
"""A reloaded adapter may answer otherwise where it holds both answers for as probable but for this.

In bf16 the weights that PiSSA trains beside are rounded, and those it is loaded on are others. The bound is from when
logits were bf16 too (until spec version 5): between 16 and 32 they lay in steps of 1/8, to which the trained and the
reloaded model round on their own, and a step moves the distance of two labels' probabilities by up to .06. It has not
been measured again since."""


def run(plan: Plan, tracker: Tracker) -> Result:
    """Carry out a plan, or return the finished run that already has its fingerprint.

    A killed run is gone on with. While another process works on the same fingerprint, this one waits.

    Raises:
        ProofError: the run did not train what its spec says.
    """
    return _tracked("run", run_name(plan), plan, tracker, _train_and_score)


def trial(
    plan: Plan, tracker: Tracker, *, tags: Mapping[str, str] | None = None, reports: PruningReports | None = None
) -> Result:
    """Train and validate a plan without looking at its test items, as a run of kind `trial`.

    A finished trial of the same fingerprint and tags is returned, a killed one gone on with.

    Raises:
        ProofError: the trial did not train what its spec says.
        PrunedError: `reports` stopped it.
    """
    from whichlora.config.plan import encoder_of
    from whichlora.training.fit import fit

    def job(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
        metrics: dict[str, float] = fit(plan, encoder_of(plan), log, work, reports=reports)["metrics"]
        return metrics

    return _tracked("trial", f"{run_name(plan)} {plan.spec.learning_rate:g}", plan, tracker, job, tags or {})


_Job = Callable[["Plan", "Tracker", "RunLog", Path], dict[str, float]]
"""Does the work of a run in a folder of its own and returns its metrics."""


def _tracked(
    kind: str, name: str, plan: Plan, tracker: Tracker, job: _Job, more: Mapping[str, str] | None = None
) -> Result:
    """Do `job` as one MLflow run of this kind, unless a finished one has the plan's fingerprint and the tags `more`."""
    from whichlora.config.spec import canonical_digest
    from whichlora.parallel.locks import exclusive
    from whichlora.run.provenance import record
    from whichlora.tracking.client import work_folder

    spec = plan.spec
    tags = {"fingerprint": spec.fingerprint, "training_fingerprint": spec.training_fingerprint, **(more or {})}
    # What one study's trial has come to says nothing of what another's wants to know.
    identity = canonical_digest([spec.training_fingerprint, dict(more)]) if more else spec.training_fingerprint
    work = work_folder() / f"{kind}-{identity[:16]}"
    with exclusive(work):
        finished = tracker.find(kind, status="FINISHED", **tags)
        if finished is not None and "whichlora.pruned" in finished.data.tags:
            raise PrunedError(finished.data.tags["whichlora.pruned"])
        if finished is not None:
            found = f"Already done: {kind} {finished.info.run_id} has this spec. Delete it in the UI to run it again."
            print(found, file=sys.stderr)  # a trial's caller prints a table
            return Result(run_id=finished.info.run_id, metrics=finished.data.metrics)
        log = tracker.open(kind, name, tags)
        try:
            with log.guarded():
                record(plan, log)
                metrics = job(plan, tracker, log, work)
                log.metrics(metrics)
        except PrunedError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
    return Result(run_id=log.run_id, metrics=metrics)


def _train_and_score(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    from whichlora.config.plan import encoder_of
    from whichlora.run import reuse
    from whichlora.run.base_scores import base_scores
    from whichlora.training import base_cache
    from whichlora.training.fit import fit

    metrics: dict[str, float] = {}
    known: dict[str, reuse.TestScores] = {}
    if plan.variant.kind == "none":
        model = base_cache.checkout(plan)
        validation, test = _scored(plan, model, known)
        base_cache.give_back(model, plan)
    else:
        facts = fit(plan, encoder_of(plan), log, work, adopt=lambda: reuse.reuse_adapter(plan, tracker, work))
        metrics |= facts["metrics"]
        log.artifacts(work / "adapter", "adapter")
        if "source" in facts:
            log.tags({"adapter_of": facts["source"]})
            known = reuse.known_test_scores(plan, tracker, facts["source"], work)
        with base_cache.with_saved_adapter(plan, work / "adapter") as model:
            validation, test = _scored(plan, model, known)
        _prove_reload(plan, validation, facts["predicted"])
    del model  # before another copy is loaded for the base's scores
    base = base_scores(tracker, plan, known=test if plan.variant.kind == "none" else {})
    for role in validation:
        metrics |= {f"validation/{role}/{k}": v for k, v in validation[role].metrics.items()}
    for role, items in plan.mixture.test.items():
        task, _ = plan.scorer(role)
        metrics |= {f"test/{role}/{k}": v for k, v in test[role].metrics.items()}
        metrics |= {f"base/{role}/{k}": v for k, v in base[role].metrics.items()}
        metrics[f"gain/{role}"] = test[role].metrics[task.headline] - base[role].metrics[task.headline]
        if task is plan.task:
            metrics |= {f"floor/{role}/{k}": v for k, v in task.floors(plan.mixture.train, items).items()}
    predictions = work / "predictions"
    for role, scores in test.items():
        path = predictions / f"{role}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        scores.predictions.to_parquet(path)
    log.artifacts(predictions, "predictions")
    if plan.task.kind == "pair" and plan.variant.kind != "none":
        metrics |= _before_and_after(plan, tracker, log, work, test, base)
    return metrics


def _before_and_after(
    plan: Plan,
    tracker: Tracker,
    log: RunLog,
    work: Path,
    test: Mapping[str, TestScores],
    base: Mapping[str, BaseScores],
) -> dict[str, float]:
    """Log `pairs.parquet`, and return the tests between the base model and the trained one."""
    from whichlora.evaluation import word_alignment
    from whichlora.run import reuse

    items = {role: items for role, items in plan.mixture.test.items() if plan.scorer(role)[0] is plan.task}
    before = {role: reuse.predictions_of(tracker, base[role].run_id, role, work / "base") for role in items}
    table = word_alignment.pairs_table(items, before, {role: test[role].predictions for role in items})
    folder = work / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "pairs.parquet", index=False)
    log.artifacts(folder)
    return word_alignment.paired_metrics(table)


def _scored(plan: Plan, model: Any, known: Mapping[str, TestScores]) -> tuple[dict[str, Scores], dict[str, TestScores]]:
    """Return by role the scores on validation and, but for those known, on test."""
    from whichlora.config.plan import encoder_of
    from whichlora.data.mixture import languages_of
    from whichlora.evaluation.scoring import score
    from whichlora.run.reuse import TestScores

    def scored(split: str, role: str, items: Sequence[Item]) -> Scores:
        task, scoring = plan.scorer(role)
        return score(model, encoder_of(plan, task), items, scoring=scoring, name=f"{split} {languages_of(items)}")

    validation = {role: scored("validation", role, items) for role, items in plan.mixture.validation.items() if items}
    test = dict(known)
    for role, items in plan.mixture.test.items():
        if role not in known:
            scores = scored("test", role, items)
            test[role] = TestScores(metrics=scores.metrics, predictions=scores.frame())
    return validation, test


def _prove_reload(plan: Plan, validation: dict[str, Scores], trained: Mapping[str, list[str | None]]) -> None:
    """Check that the saved adapter on the plain base predicts what the trained model predicted on validation.

    One answer in fifty may differ: conversion and another order of sums move probabilities in the last digits.
    """
    for role, before in trained.items():
        differing = _differing(before, validation[role], near=NEAR[plan.spec.precision])
        if differing > max(1, len(before) // 50):
            raise ProofError(
                f"the saved {plan.spec.variant} adapter answers {differing} of {len(before)} {role} validation items "
                "otherwise than the trained model"
            )


def _differing(before: Sequence[str | None], after: Scores, *, near: float) -> int:
    """Count the answers that differ, but for those that are `near` as probable as the one that is given now."""
    own = list(zip(before, after.predicted, strict=True))
    if after.probabilities is None:
        return sum(a != b for a, b in own)
    place = {label: i for i, label in enumerate(after.labels)}
    lost = [p.max() - p[place[a]] for (a, _), p in zip(own, after.probabilities, strict=True) if a is not None]
    return sum(bool(loss > near) for loss in lost)
