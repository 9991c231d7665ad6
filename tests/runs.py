"""Small runs on the tiny model, shared by the tests of several modules."""

from __future__ import annotations

from typing import Any

import torch

from whichlora.config.options import MAIN, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.models.memory import freeze_gc
from whichlora.run.pipeline import Result, run
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.training import adapter, base_cache
from whichlora.training.trainer import total_steps

SMALL = {"train_size": "40", "validation_size": "6", "test_size": "9", "batch_size": "8", "learning_rate": "0.01"}
PAIRS = {"task": "align-words", "layers": "first:2", "train_size": 24, "validation_size": 12, "test_size": 12}


def plan_of(model: str, **options: Any) -> Plan:
    """Resolve a small plan on `model`."""
    defaults = {name: default for name, (default, _) in MAIN.items()}
    given = {**SMALL, **{name: str(value) for name, value in options.items()}}
    if given.get("variant") == "none":
        given.pop("learning_rate"), given.pop("batch_size")
    plan = resolve(parse_options({**defaults, **given, "model": model}))
    freeze_gc()
    return plan


def moved(plan: Plan, *, precision: str | None = None, base: Any = None) -> Any:
    """Return a plan's model with an adapter moved off its initialisation, where many have no gradient or no effect."""
    torch.manual_seed(plan.spec.seed)
    model, _, _ = adapter.attach(
        base or base_cache.checkout(plan, precision=precision), plan, total_steps=total_steps(plan.spec)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def run_of(plan: Plan, experiment: str = "tests") -> Result:
    """Execute a plan in the test's tracking database."""
    return run(plan, Tracker(connect(), experiment))
