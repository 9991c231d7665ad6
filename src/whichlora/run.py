"""One run, from options to a tracked result: `python -m whichlora.run --variant vera`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from whichlora import __version__, processes
from whichlora.errors import MemoryExhausted, OptionError, ProofError
from whichlora.options import parse_arguments, parse_values
from whichlora.summary import Result, run_name, summary

if TYPE_CHECKING:
    from whichlora.encoding import Encoder
    from whichlora.evaluation import Scores
    from whichlora.resolve import Plan
    from whichlora.tracking import RunLog, Tracker

VERSIONED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "mlflow", "babel")


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
            _record(plan, log)
            metrics = job(plan, tracker, log, work)
            log.metrics(metrics)
        shutil.rmtree(work, ignore_errors=True)
    return Result(run_id=log.run_id, metrics=metrics)


def _train_only(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    return _trained(plan, _encoder(plan), log, work)


def _train_and_score(plan: Plan, tracker: Tracker, log: RunLog, work: Path) -> dict[str, float]:
    from whichlora import models
    from whichlora.adapters import reload
    from whichlora.baseline import base_metrics
    from whichlora.evaluation import score

    spec, variant = plan.spec, plan.variant
    encoder = _encoder(plan)
    metrics: dict[str, float] = {}

    def plain() -> Any:
        return models.load_model(plan.source, precision=spec.precision, quantization=spec.quantization)

    if variant.kind == "none":
        model = plain()
    else:
        metrics |= _trained(plan, encoder, log, work)
        log.artifacts(work / "adapter", "adapter")
        model = _mergeable(plan, reload(plan, work / "adapter"))

    def scored(split: str) -> dict[str, Scores]:
        return {
            role: score(model, encoder, items, scoring=spec.scoring, name=f"{split} {items[0].language}")
            for role, items in getattr(plan.mixture, split).items()
        }

    validation = scored("validation")
    if variant.kind != "none":
        _prove_reload(plan, validation, work)
    test = scored("test")
    model = None  # before another copy is loaded for the base's scores
    base = base_metrics(tracker, plan, encoder, plain)
    for role in ("en", "tl"):
        metrics |= {f"validation/{role}/{k}": v for k, v in validation[role].metrics.items()}
        metrics |= {f"test/{role}/{k}": v for k, v in test[role].metrics.items()}
        metrics |= {f"base/{role}/{k}": v for k, v in base[role].items()}
        metrics[f"gain/{role}"] = test[role].metrics["f1"] - base[role]["f1"]
        floors = plan.task.floors(plan.mixture.train, plan.mixture.test[role])
        metrics |= {f"floor/{role}/{k}": v for k, v in floors.items()}
    predictions = work / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    for role, scores in test.items():
        scores.frame().to_parquet(predictions / f"{role}.parquet")
    log.artifacts(predictions, "predictions")
    return metrics


def _encoder(plan: Plan) -> Encoder:
    from whichlora.encoding import Encoder

    return Encoder(plan.task, plan.tokenizer, max_length=plan.shape.context)


def _mergeable(plan: Plan, model: Any) -> Any:
    """Return the model with the adapter folded into its weights where that changes no answers and saves time."""
    exact = plan.variant.kind == "adapter" and plan.spec.precision == "fp32" and plan.spec.quantization == "none"
    return model.merge_and_unload() if exact else model


def _trained(plan: Plan, encoder: Encoder, log: RunLog, work: Path) -> dict[str, float]:
    """Leave the adapter in `work/adapter` and return the metrics of its training; reads both if they are there."""
    from whichlora.checkpoints import read_json, write_json

    record = work / "trained.json"
    if not record.is_file():
        write_json(record, _train(plan, encoder, log, work))
    facts = read_json(record)
    log.series("train/loss", facts["losses"])  # another run may have trained the adapter that this one scores
    metrics: dict[str, float] = facts["metrics"]
    return metrics


def _train(plan: Plan, encoder: Encoder, log: RunLog, work: Path) -> dict[str, Any]:
    from whichlora import adapters
    from whichlora.callbacks import Losses
    from whichlora.checkpoints import last_complete
    from whichlora.evaluation import score
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
            scores = score(model, encoder, items, scoring=plan.spec.scoring, name=f"validation {items[0].language}")
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


def _prove_reload(plan: Plan, validation: dict[str, Scores], work: Path) -> None:
    """Check that the saved adapter on the plain base predicts what the trained model predicted on validation.

    One answer in fifty may differ: conversion and another order of sums move probabilities in the last digits.
    """
    from whichlora.checkpoints import read_json

    trained: dict[str, list[str | None]] = read_json(work / "trained.json")["predicted"]
    for role, before in trained.items():
        differing = sum(a != b for a, b in zip(before, validation[role].predicted, strict=True))
        if differing > max(1, len(before) // 50):
            raise ProofError(
                f"the saved {plan.spec.variant} adapter answers {differing} of {len(before)} {role} validation items "
                "otherwise than the trained model"
            )


def _record(plan: Plan, log: RunLog) -> None:
    """Log what decides the run: params, versions, the whole spec, and the datasets."""
    import tempfile

    from whichlora.mixture import texts_digest
    from whichlora.packaged import MODEL_NAME

    spec = plan.spec
    fields = spec.to_dict()
    versions = {f"version/{package}": version(package) for package in VERSIONED} | {"version/whichlora": __version__}
    log.params({**fields, **versions, "model_revision": plan.source.revision or spec.model_digest})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "spec.json"
        path.write_text(json.dumps({**fields, "fingerprint": spec.fingerprint}, indent=2), encoding="utf-8")
        log.artifacts(Path(scratch))
    origin = "generated from CLDR names" if plan.task.synthetic else spec.task
    splits = {"train": (plan.mixture.train, spec.train_digest)}
    for role in ("en", "tl"):
        splits[f"test/{role}"] = (plan.mixture.test[role], spec.test_digests[role])
        chosen_on = plan.mixture.validation[role]
        splits[f"validation/{role}"] = (chosen_on, texts_digest(plan.task, chosen_on))
    for context, (items, digest) in splits.items():
        counts = {"num_rows": len(items), "languages": sorted({item.language for item in items})}
        log.dataset(context=context, name=spec.task, digest=digest, source=origin, profile=json.dumps(counts))
    if spec.model == MODEL_NAME and plan.task.synthetic:
        log.tags({"synthetic": "true"})


def _lock(path: Path) -> FileLock:
    """Return a lock to enter with `with`, saying so if another process holds it."""
    lock = FileLock(path)
    try:
        with lock.acquire(blocking=False):
            pass
    except Timeout:
        print("Waiting: another process is working on the same spec.", file=sys.stderr)
    return lock


def _quiet() -> None:
    """Silence what the libraries say on every run and nobody can act on; other warnings are shown."""
    import logging
    import warnings

    import transformers

    transformers.utils.logging.disable_progress_bar()  # of loading weights, which takes a second
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a kernel for 4-bit models on the CPU is missing
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
    warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")  # AdaLoRA's name LoRA's


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, run, and print a summary. Returns the exit status: 2 for bad options.

    Under `accelerate launch` the first process does all this, and the others train with it.
    """
    processes.start()
    if processes.index() > 0:
        _quiet()
        processes.serve()
        return 0
    try:
        return _lead(arguments)
    finally:
        processes.finish()


def _lead(arguments: Sequence[str] | None) -> int:
    texts = parse_arguments(arguments, "Train one adapter, score it, and track it.")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        values = parse_values(texts)
        from whichlora.resolve import resolve

        _quiet()
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
