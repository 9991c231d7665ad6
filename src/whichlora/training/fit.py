"""Trains a plan's adapter with validation, and saves the adapter and a record of its training."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from whichlora.config.plan import Plan
from whichlora.config.spec import RunSpec
from whichlora.data.mixture import languages_of, selection_roles
from whichlora.errors import DamagedError, PrunedError
from whichlora.evaluation.scores import Scores, score
from whichlora.models.notices import is_document
from whichlora.parallel import distributed
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.telemetry import Telemetry
from whichlora.training import adapter, base_cache, full_layers
from whichlora.training.callbacks import METRICS, RECORD, Losses
from whichlora.training.checkpoints import recover
from whichlora.training.objectives import objective_of
from whichlora.training.sealed import files_in, read_checked, write_record
from whichlora.training.trainer import total_steps, train

_TRAINED = "trained.json"
_OF_EACH_RUN = ("README.md", "whichlora.json")
"""Files beside an adapter that are another run's until this run has its scores, and then are replaced."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Predictions, losses and metrics of a trained adapter.

    Attributes:
        predicted: by role, the trained model's predictions for the validation items that selected the checkpoint.
        losses: (step, mean loss) points.
        metrics: training metrics by their name in MLflow.
        source: id of the run that trained the adapter; None if this run did.
    """

    predicted: Mapping[str, list[str | None]]
    losses: Losses
    metrics: Mapping[str, float]
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class PruningReports:
    """Schedule and receiver of the intermediate validation scores that a pruner needs.

    Attributes:
        roles: the validation sets to score, `en` or `tl`.
        times: the number of reports, at equal intervals of steps; the last is at the end of training.
        report: receives the number of the report, counted from 1, and the mean F1 over the roles; raises `PrunedError`
            to stop the trial.
        save_pruned: whether to save the adapter of a trial that is stopped, as it is then, to `work/adapter`.
    """

    roles: Sequence[str]
    times: int
    report: Callable[[int, float], None]
    save_pruned: bool = False

    def steps(self, spec: RunSpec) -> list[int]:
        """Return the optimiser steps after which to report."""
        total = total_steps(spec)
        return sorted({max(1, round(total * k / self.times)) for k in range(1, self.times + 1)})


def fit(
    plan: Plan,
    log: RunLog,
    work: Path,
    *,
    reuse: Callable[[], TrainingRecord | None] | None = None,
    reports: PruningReports | None = None,
) -> TrainingRecord:
    """Train the plan's adapter, save it to `work/adapter` and return the record of its training.

    An adapter that an earlier attempt finished in `work` is not trained again.

    Args:
        reuse: downloads the adapter of another run to `work/adapter` and returns its record; None if there is none.

    Raises:
        ProofError: The adapter does not match the spec, or did not train.
        PrunedError: `reports` stopped the training; what was measured until then is logged.
    """
    record = _finished(work)
    if record is None:
        work.mkdir(parents=True, exist_ok=True)
        record = (reuse and reuse()) or _train(plan, log, work, reports)
        params, metrics = full_layers.facts(work / "adapter")
        log.params(params)
        record = replace(record, metrics={**record.metrics, **metrics})
        trained = [
            file for file in files_in(work / "adapter") if file.name not in _OF_EACH_RUN and not is_document(file.name)
        ]
        write_record(work / _TRAINED, asdict(record), files=trained)
    log.series("train/loss", record.losses)  # logs nothing new unless another run trained the adapter
    return record


def _finished(work: Path) -> TrainingRecord | None:
    """Return the record of an adapter that an earlier attempt finished in `work`; None if there is none.

    A damaged adapter is removed, with a warning.
    """
    if (work / _TRAINED).is_file():
        try:
            return TrainingRecord(**read_checked(work / _TRAINED))
        except DamagedError as error:
            print(f"warning: {error}: the end of the training is repeated.", file=sys.stderr)
            (work / _TRAINED).unlink()
    shutil.rmtree(work / "adapter", ignore_errors=True)
    return None


def _train(plan: Plan, log: RunLog, work: Path, reports: PruningReports | None) -> TrainingRecord:
    checkpoint = recover(work)
    if checkpoint is None or full_layers.record_is_lost(plan, work):
        shutil.rmtree(work, ignore_errors=True)  # an earlier attempt may have died before its first checkpoint
    else:
        print(f"Resuming from {checkpoint.name}.")
    work.mkdir(parents=True, exist_ok=True)
    selecting_roles = selection_roles(plan.mixture.validation, plan.spec.select_on)
    reported_roles = list(reports.roles) if reports else []
    report_steps = reports.steps(plan.spec) if reports else []
    encoder = plan.encoder()
    latest: dict[str, tuple[int, Scores]] = {}
    losses: Losses = []

    def validation_scores(role: str, model: Any, step: int) -> Scores:
        if role not in latest or latest[role][0] != step:
            items = plan.mixture.validation[role]
            name = f"validation {languages_of(items)}"
            latest[role] = step, score(model, encoder, items, scoring=plan.scoring, name=name)
        return latest[role][1]

    def mean_score(roles: Sequence[str], model: Any, step: int) -> float:
        return sum(validation_scores(role, model, step).metrics[plan.task.headline] for role in roles) / len(roles)

    def report_score(model: Any, step: int) -> None:
        assert reports is not None
        value = mean_score(reported_roles, model, step)
        log.series("validation/f1", [(step, value)])
        try:
            reports.report(report_steps.index(step) + 1, value)
        except PrunedError:
            if reports.save_pruned:
                adapter.save(model, plan, work / "adapter", initial=work)
            raise

    def log_losses(points: Losses) -> None:
        losses.extend(points)
        log.series("train/loss", points)

    telemetry = Telemetry(log)
    objective = objective_of(plan)
    examples = [objective.example(encoder, item) for item in plan.mixture.train]
    try:
        result = distributed.on_all_ranks(
            train,
            plan,
            examples,
            work,
            validate=functools.partial(mean_score, selecting_roles),
            on_losses=log_losses,
            on_step=report_score if reports else None,
            hook_steps=report_steps,
            telemetry=telemetry,
        )
    except PrunedError as pruned:
        params, metrics = full_layers.facts(work)
        log.params(params)
        log.metrics({**pruned.metrics, **telemetry.metrics(), **metrics})
        raise
    headline = plan.task.headline
    validation = {
        role: validation_scores(role, result.model, result.best_step)
        for role in dict.fromkeys([*selecting_roles, *reported_roles])
    }
    adapter.save(result.model, plan, work / "adapter", initial=work)
    base_cache.give_back_trained(result.model, plan)
    return TrainingRecord(
        predicted={role: validation[role].predicted for role in selecting_roles},
        losses=losses,
        metrics={
            "adapter/trainable_parameters": result.trainable,
            "adapter/trainable_percent": 100 * result.trainable / plan.shape.parameters,
            "train/seconds": result.seconds,
            "train/examples_per_second": result.examples / result.seconds,
            "train/best_step": result.best_step,
            "train/micro_batch": result.micro_batch,
            "train/gradient_checkpointing": float(result.checkpointing),
            **({"train/packed": result.packed} if result.packed > 1 else {}),
            **{f"validation/{role}/{headline}": scores.metrics[headline] for role, scores in validation.items()},
            **telemetry.metrics(),
            **_log_record(log, work / RECORD),
        },
    )


def _log_record(log: RunLog, folder: Path) -> dict[str, float]:
    """Log what the variant has recorded of its training, if anything, and return its metrics by their MLflow names."""
    if not folder.is_dir():
        return {}
    log.artifacts(folder, RECORD)
    return {f"train/{name}": value for name, value in json.loads((folder / METRICS).read_text("utf-8")).items()}
