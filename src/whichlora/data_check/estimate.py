"""Estimates the time of a run on this machine from a few training steps and a few scored items."""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whichlora.config.cli import format_duration
from whichlora.config.plan import Plan
from whichlora.data.mixture import selection_roles
from whichlora.evaluation.scores import score
from whichlora.training import base_cache
from whichlora.training.objectives import objective_of
from whichlora.training.trainer import total_steps, train

STEPS = 4
"""Number of measured training steps; one more comes first, which includes what is done once."""
FIRST_ITEMS, MAX_ITEMS = 8, 256
"""Numbers of scored items: four times as many as long as scoring takes less than `ENOUGH_SECONDS`."""
ENOUGH_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Measured seconds, and the numbers that a run has of what was measured.

    Attributes:
        step, item: seconds of a training step and of scoring an item.
        items_measured: number of items that were scored.
        steps, validated, tested: numbers of steps, of items scored for validation, and of test items.
    """

    step: float
    item: float
    items_measured: int
    steps: int
    validated: int
    tested: int

    def __str__(self) -> str:
        training, scoring = self.step * self.steps, self.item * (self.validated + self.tested)
        base = self.item * self.tested
        parts = []
        if self.steps:
            parts.append(f"training {format_duration(training)} ({self.steps:,} steps of {_seconds(self.step)})")
        items = f"{self.validated:,} validation and {self.tested:,} test items, {_seconds(self.item)} each"
        parts.append(f"scoring {format_duration(scoring)} ({items})")
        measured = f"{STEPS} steps and {self.items_measured} items" if self.steps else f"{self.items_measured} items"
        return (
            f"  About {format_duration(training + scoring + base)}: {', '.join(parts)},\n"
            f"  and {format_duration(base)} for the scores of the base model, which later runs reuse.\n"
            f"  This is an estimate from {measured}, without loading and saving."
        )


def estimate(plan: Plan) -> Estimate:
    """Measure some steps and items of a plan, whose variant is attached to the model and trained as in a run.

    Raises:
        OptionError, ProofError, MemoryExhausted: as in a run.
    """
    steps = total_steps(plan.spec) if plan.variant.trains else 0
    step = _seconds_per_step(plan) if steps else 0.0
    item, measured = _seconds_per_item(plan)
    roles = selection_roles(plan.mixture.validation, plan.spec.select_on)
    selecting = sum(len(plan.mixture.validation[role]) for role in roles)
    # After each epoch, and once more in the reloaded model.
    validated = selecting * (plan.spec.epochs or 0) + sum(map(len, plan.mixture.validation.values()))
    return Estimate(
        step=step,
        item=item,
        items_measured=measured,
        steps=steps,
        validated=validated,
        tested=sum(len(test.items) for test in plan.tests.values()),
    )


def _seconds_per_step(plan: Plan) -> float:
    """Train some steps on random items and return the mean duration of a step."""
    size = plan.spec.batch_size
    assert size is not None
    items = plan.mixture.train
    chosen = random.Random(0).choices(items, k=size * (STEPS + 1)) if len(items) > size else [*items] * (STEPS + 1)
    objective, encoder = objective_of(plan), plan.encoder()
    short = replace(plan.spec, train_size=len(chosen), tl_ratio=0.0, composition="substitution", epochs=1)
    times: dict[int, float] = {}

    def note(model: Any, step: int) -> None:
        times[step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        result = train(
            replace(plan, spec=short),
            [objective.example(encoder, item) for item in chosen],
            Path(folder),
            validate=lambda model, step: 0.0,
            on_step=note,
            hook_steps=range(1, STEPS + 2),
        )
    assert result is not None
    base_cache.give_back_trained(result.model, plan)
    first, last = min(times), max(times)
    return (times[last] - times[first]) / (last - first)


def _seconds_per_item(plan: Plan) -> tuple[float, int]:
    """Score random test items with the base model; return the seconds of an item, and their number."""
    test = next(iter(plan.tests.values()))
    items = random.Random(0).sample(test.items, min(MAX_ITEMS, len(test.items)))
    model = base_cache.checkout(plan)
    score(model, plan.encoder(test.task), items[:2], scoring=test.scoring, name="warm-up")
    number, seconds = FIRST_ITEMS, 0.0
    while True:
        chosen = items[:number]
        start = time.perf_counter()
        score(model, plan.encoder(test.task), chosen, scoring=test.scoring, name="estimate")
        seconds = time.perf_counter() - start
        if seconds > ENOUGH_SECONDS or len(chosen) == len(items):
            break
        number *= 4
    base_cache.give_back(model, plan)
    return seconds / len(chosen), len(chosen)


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
