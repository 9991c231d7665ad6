"""One run, from options to a tracked result: `python -m whichlora.run --variant vera`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from whichlora import processes
from whichlora.errors import MemoryExhausted, OptionError, ProofError
from whichlora.noise import quiet
from whichlora.options import parse_arguments, parse_values
from whichlora.summary import Result, run_name, summary

if TYPE_CHECKING:
    from whichlora.encoding import Encoder
    from whichlora.evaluation import Scores
    from whichlora.resolve import Plan
    from whichlora.sharing import Known
    from whichlora.tasks import Item
    from whichlora.tracking import RunLog, Tracker


def run(plan: Plan, tracker: Tracker) -> Result:
    """Carry out a plan, or return the finished run that already has its fingerprint.

    A killed run is gone on with. While another process works on the same fingerprint, this one waits.

    Raises:
        ProofError: the run did not train what its spec says.
    """
    return _tracked("run", run_name(plan), plan, tracker, _train_and_score)


def trial(plan: Plan, tracker: Tracker) -> Result:
    """Train and validate a plan without looking at its test items, as a run of kind `trial`.

    A finished trial of the same fingerprint is returned, a killed one gone on with.

    Raises:
        ProofError: the trial did not train what its spec says.
    """
    return _tracked("trial", f"{run_name(plan)} {plan.spec.learning_rate:g}", plan, tracker, _train_only)


_Job = Callable[["Plan", "Tracker", "RunLog", Path], dict[str, float]]
"""Does the work of a run in a folder of its own and returns its metrics."""


def _tracked(kind: str, name: str, plan: Plan, tracker: Tracker, job: _Job) -> Result:
    """Do `job` as one MLflow run of this kind, unless a finished one has the plan's fingerprint."""
    from whichlora.provenance import record
    from whichlora.tracking import work_folder

    spec = plan.spec
    work = work_folder() / f"{kind}-{spec.training_fingerprint[:16]}"
    work.parent.mkdir(parents=True, exist_ok=True)
    with _lock(work.with_suffix(".lock")):
        finished = tracker.find(kind, status="FINISHED", fingerprint=spec.fingerprint)
        if finished is not None:
            found = f"Already done: {kind} {finished.info.run_id} has this spec. Delete it in the UI to run it again."
            print(found, file=sys.stderr)  # a trial's caller prints a table
            return Result(run_id=finished.info.run_id, metrics=finished.data.metrics)
        tags = {"fingerprint": spec.fingerprint, "training_fingerprint": spec.training_fingerprint}
        log = tracker.open(kind, name, tags)
        with log.guarded():
            record(plan, log)
            metrics = job(plan, tracker, log, work)
            log.metrics(metrics)
        shutil.rmtree(work, ignore_errors=True)
    return Result(run_id=log.run_id, metrics=metrics)


def _train_only(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    metrics: dict[str, float] = _trained(plan, _encoder(plan), log, work)["metrics"]
    return metrics


def _train_and_score(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    from whichlora import bases, sharing
    from whichlora.baseline import base_metrics

    encoder = _encoder(plan)
    metrics: dict[str, float] = {}
    known: dict[str, sharing.Known] = {}
    if plan.variant.kind == "none":
        model = bases.take(plan)
        validation, test = _scored(plan, model, encoder, known)
        bases.keep(model, plan)
    else:
        facts = _trained(plan, encoder, log, work, adopt=lambda: sharing.adopt(plan, tracker, work))
        metrics |= facts["metrics"]
        log.artifacts(work / "adapter", "adapter")
        if "source" in facts:
            log.tags({"adapter_of": facts["source"]})
            known = sharing.known_test_scores(plan, tracker, facts["source"], work)
        with bases.reloaded(plan, work / "adapter") as model:
            validation, test = _scored(plan, model, encoder, known)
        _prove_reload(plan, validation, facts["predicted"])
    del model  # before another copy is loaded for the base's scores
    base = base_metrics(tracker, plan, encoder, known=test if plan.variant.kind == "none" else {})
    for role in ("en", "tl"):
        if role in validation:
            metrics |= {f"validation/{role}/{k}": v for k, v in validation[role].metrics.items()}
        metrics |= {f"test/{role}/{k}": v for k, v in test[role].metrics.items()}
        metrics |= {f"base/{role}/{k}": v for k, v in base[role].items()}
        metrics[f"gain/{role}"] = test[role].metrics["f1"] - base[role]["f1"]
        floors = plan.task.floors(plan.mixture.train, plan.mixture.test[role])
        metrics |= {f"floor/{role}/{k}": v for k, v in floors.items()}
    predictions = work / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    for role, scores in test.items():
        scores.predictions.to_parquet(predictions / f"{role}.parquet")
    log.artifacts(predictions, "predictions")
    return metrics


def _scored(
    plan: Plan, model: Any, encoder: Encoder, known: Mapping[str, Known]
) -> tuple[dict[str, Scores], dict[str, Known]]:
    """Return by role the scores on validation and, but for those known, on test."""
    from whichlora.evaluation import score
    from whichlora.mixture import spoken
    from whichlora.sharing import Known

    def scored(split: str, items: Sequence[Item]) -> Scores:
        return score(model, encoder, items, scoring=plan.spec.scoring, name=f"{split} {spoken(items)}")

    validation = {role: scored("validation", items) for role, items in plan.mixture.validation.items() if items}
    test = dict(known)
    for role, items in plan.mixture.test.items():
        if role not in known:
            scores = scored("test", items)
            test[role] = Known(metrics=scores.metrics, predictions=scores.frame())
    return validation, test


def _encoder(plan: Plan) -> Encoder:
    from whichlora.encoding import Encoder

    return Encoder(plan.task, plan.tokenizer, max_length=plan.shape.context)


def _trained(
    plan: Plan, encoder: Encoder, log: RunLog, work: Path, *, adopt: Callable[[], dict[str, Any] | None] | None = None
) -> dict[str, Any]:
    """Leave the adapter in `work/adapter` and return what is on record of its training; reads both if they are there.

    `adopt` fetches them from another run, if one has them.
    """
    from whichlora.checkpoints import read_json, write_json

    record = work / "trained.json"
    if not record.is_file():
        work.mkdir(parents=True, exist_ok=True)
        write_json(record, (adopt and adopt()) or _train(plan, encoder, log, work))
    facts = read_json(record)
    log.series("train/loss", facts["losses"])  # another run may have trained the adapter that this one scores
    return facts


def _train(plan: Plan, encoder: Encoder, log: RunLog, work: Path) -> dict[str, Any]:
    from whichlora import adapters, bases
    from whichlora.callbacks import Losses
    from whichlora.checkpoints import last_complete
    from whichlora.evaluation import score
    from whichlora.mixture import spoken
    from whichlora.telemetry import Telemetry
    from whichlora.training import total_steps, train

    resuming = last_complete(work)
    if resuming is None:
        shutil.rmtree(work, ignore_errors=True)  # what a process left that died before its first checkpoint
    else:
        print(f"Going on from {resuming[0].name}.")
    work.mkdir(parents=True, exist_ok=True)
    chosen_on = [role for role in ("en", "tl") if plan.spec.select_on in (role, "mean")]
    predicted: dict[str, list[str | None]] = {}
    f1: dict[str, float] = {}
    losses: Losses = []

    def validate(model: Any) -> float:
        for role in chosen_on:
            items = plan.mixture.validation[role]
            scores = score(model, encoder, items, scoring=plan.spec.scoring, name=f"validation {spoken(items)}")
            f1[role], predicted[role] = scores.metrics["f1"], scores.predicted
        return sum(f1.values()) / len(f1)

    def report(points: Losses) -> None:
        losses.extend(points)
        log.series("train/loss", points)

    window = Telemetry()
    examples = [encoder.example(item) for item in plan.mixture.train]
    fitted = processes.together(train, plan, examples, work, validate=validate, on_losses=report, window=window)
    if fitted.best_step < total_steps(plan.spec):
        validate(fitted.model)  # what was scored last is not what is kept
    adapters.save(fitted.model, plan, work / "adapter", initial=work)
    bases.keep_trained(fitted.model, plan)
    return {
        "predicted": predicted,
        "losses": losses,
        "metrics": {
            "adapter/trainable_parameters": fitted.trainable,
            "adapter/trainable_percent": 100 * fitted.trainable / plan.shape.parameters,
            "train/seconds": fitted.seconds,
            "train/examples_per_second": fitted.examples / fitted.seconds,
            "train/best_step": fitted.best_step,
            "train/micro_batch": fitted.micro_batch,
            "train/gradient_checkpointing": float(fitted.checkpointing),
            **{f"validation/{role}/f1": value for role, value in f1.items()},
            **window.metrics(),
        },
    }


def _prove_reload(plan: Plan, validation: dict[str, Scores], trained: Mapping[str, list[str | None]]) -> None:
    """Check that the saved adapter on the plain base predicts what the trained model predicted on validation.

    One answer in fifty may differ: conversion and another order of sums move probabilities in the last digits.
    """
    for role, before in trained.items():
        differing = sum(a != b for a, b in zip(before, validation[role].predicted, strict=True))
        if differing > max(1, len(before) // 50):
            raise ProofError(
                f"the saved {plan.spec.variant} adapter answers {differing} of {len(before)} {role} validation items "
                "otherwise than the trained model"
            )


def _lock(path: Path) -> FileLock:
    """Return a lock to enter with `with`, saying so if another process holds it."""
    lock = FileLock(path)
    try:
        with lock.acquire(blocking=False):
            pass
    except Timeout:
        print("Waiting: another process is working on the same spec.", file=sys.stderr)
    return lock


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, run, and print a summary. Returns the exit status: 2 for bad options.

    Under `accelerate launch` the first process does all this, and the others train with it.
    """
    return processes.lead(lambda: _lead(arguments))


def _lead(arguments: Sequence[str] | None) -> int:
    texts = parse_arguments(arguments, "Train one adapter, score it, and track it.")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        values = parse_values(texts)
        from whichlora.resolve import resolve

        quiet()
        plan = resolve(values)
        from whichlora import tracking

        client = tracking.connect()
        tracker = tracking.Tracker(client, tracking.chosen_experiment(client), tracking.mark_launch(client))
        result = run(plan, tracker)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        if os.environ.get("MLFLOW_RUN_ID"):
            from whichlora import tracking

            tracking.mark_launch(tracking.connect())
        return 2
    except (ProofError, MemoryExhausted) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tracking.link_launch(client, tracker.launch, result.run_id)
    print(summary(plan, result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
