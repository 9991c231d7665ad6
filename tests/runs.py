"""Small runs on the tiny model, shared by the tests of several modules."""

from __future__ import annotations

from typing import Any

import torch

from whichlora.config.plan import Plan
from whichlora.testing.runs import SMALL, move_adapter
from whichlora.testing.runs import run_plan as run_of
from whichlora.testing.runs import small_plan as plan_of
from whichlora.training import adapter, base_cache
from whichlora.training.trainer import total_steps

__all__ = ["PAIRS", "SMALL", "moved", "plan_of", "run_of"]

PAIRS = {"task": "align-words", "layers": "first:2", "train_size": 24, "validation_size": 12, "test_size": 12}


def moved(plan: Plan, *, precision: str | None = None, base: Any = None) -> Any:
    """Return a plan's model with an adapter moved off its initialisation, where many have no gradient or no effect."""
    torch.manual_seed(plan.spec.seed)
    model, _, _ = adapter.attach(
        base or base_cache.checkout(plan, precision=precision), plan, total_steps=total_steps(plan.spec)
    )
    move_adapter(model, by=0.02)
    return model
