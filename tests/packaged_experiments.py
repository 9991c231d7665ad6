"""Reads the experiments of the package: their content, and the values that their runs have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from whichlora.experiment.grid import Grid

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PAPER = EXPERIMENTS / "paper"
FEW = {"train_size": 100, "validation_size": 4, "test_size": 4}


def packaged(name: str) -> dict[str, Any]:
    """Return a packaged file's content, with that of the files it extends."""
    content = yaml.safe_load((EXPERIMENTS / name).read_text())
    if "extends" in content:
        parent = packaged(str(Path(name).parent / content["extends"]))
        content = parent | content | {"defaults": parent["defaults"] | content.get("defaults", {})}
    return dict(content)


def values(grid: Grid, name: str) -> set[Any]:
    return {getattr(plan.spec, name) for plan in grid.plans}


def methods(grid: Grid) -> set[tuple[str, str]]:
    return {(plan.spec.variant, plan.spec.arm) for plan in grid.plans}
