"""Fits a plan's adapter, scores it on validation on the way, and leaves the adapter and what is on record of it."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.data.mixture import languages_of, selection_roles
from whichlora.evaluation.scores import Scores, score
from whichlora.parallel import distributed
from whichlora.tracking.telemetry import Telemetry
from whichlora.training import adapter, base_cache
from whichlora.training.callbacks import Losses
from whichlora.training.checkpoints import last_complete, read_json, write_json
from whichlora.training.objectives import objective_of
from whichlora.training.trainer import total_steps, train

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.config.spec import RunSpec
    from whichlora.tracking.runs import RunLog


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What is on record of a training.

    Attributes:
        predicted: by role, what the trained model predicted for the validation items that chose the checkpoint.
        losses: (step, mean loss) points.
        source: id of the run that trained the adapter, if it was another one.
    """

    predicted: Mapping[str, list[str | None]]
    losses: Losses
    metrics: Mapping[str, float]
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class PruningReports:
    """What a tuner wants to know while a trial trains.

    Attributes:
        roles: the languages, `en` or `tl`, whose validation it looks at.
        times: how often, after equal shares of the steps; the last time is the end.
        report: receives the number of the report, from 1, and the mean F1 of the roles. It raises `PrunedError` to stop
            the trial.
    """

    roles: Sequence[str]
    times: int
    report: Callable[[int, float], None]

    def steps(self, spec: RunSpec) -> list[int]:
        """Return the optimiser steps after which there is a report."""
        total = total_steps(spec)
        return sorted({max(1, round(total * k / self.times)) for k in range(1, self.times + 1)})


def fit(
    plan: Plan,
    log: RunLog,
    work: Path,
    *,
    adopt: Callable[[], TrainingRecord | None] | None = None,
    reports: PruningReports | None = None,
) -> TrainingRecord:
    """Leave the adapter in `work/adapter` and return the record of its training; reads both if they are there.

    `adopt` fetches them from another run, if one has them.
    """
    path = work / "trained.json"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict((adopt and adopt()) or _train(plan, log, work, reports)))
    record = TrainingRecord(**read_json(path))
    log.series("train/loss", record.losses)  # another run may have trained the adapter that this one scores
    return record


def _train(plan: Plan, log: RunLog, work: Path, reports: PruningReports | None) -> TrainingRecord:
    resuming = last_complete(work)
    if resuming is None:
        shutil.rmtree(work, ignore_errors=True)  # what a process left that died before its first checkpoint
    else:
        print(f"Going on from {resuming[0].name}.")
    work.mkdir(parents=True, exist_ok=True)
    chosen_on = selection_roles(plan.mixture.validation, plan.spec.select_on)
    asked = list(reports.roles) if reports else []
    report_steps = reports.steps(plan.spec) if reports else []
    encoder = plan.encoder()
    newest: dict[str, tuple[int, Scores]] = {}
    losses: Losses = []

    def scored(role: str, model: Any, step: int) -> Scores:
        if role not in newest or newest[role][0] != step:
            items = plan.mixture.validation[role]
            name = f"validation {languages_of(items)}"
            newest[role] = step, score(model, encoder, items, scoring=plan.scoring, name=name)
        return newest[role][1]

    def mean_score(roles: Sequence[str], model: Any, step: int) -> float:
        return sum(scored(role, model, step).metrics[plan.task.headline] for role in roles) / len(roles)

    def peek(model: Any, step: int) -> None:
        assert reports is not None
        value = mean_score(asked, model, step)
        log.series("validation/f1", [(step, value)])
        reports.report(report_steps.index(step) + 1, value)

    def report(points: Losses) -> None:
        losses.extend(points)
        log.series("train/loss", points)

    window = Telemetry()
    objective = objective_of(plan)
    examples = [objective.example(encoder, item) for item in plan.mixture.train]
    result = distributed.on_all_ranks(
        train,
        plan,
        examples,
        work,
        validate=functools.partial(mean_score, chosen_on),
        on_losses=report,
        peek=peek if reports else None,
        peek_steps=report_steps,
        window=window,
    )
    headline = plan.task.headline
    kept = {role: scored(role, result.model, result.best_step) for role in dict.fromkeys([*chosen_on, *asked])}
    adapter.save(result.model, plan, work / "adapter", initial=work)
    base_cache.give_back_trained(result.model, plan)
    return TrainingRecord(
        predicted={role: kept[role].predicted for role in chosen_on},
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
            **{f"validation/{role}/{headline}": scores.metrics[headline] for role, scores in kept.items()},
            **window.metrics(),
        },
    )
