"""All items of a run at once: those it trains on, is chosen by, and is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whichlora.data.mixture import Mixture, draw, draw_tests
from whichlora.data.tasks import Item, Task


@dataclass(frozen=True, kw_only=True)
class Drawn(Mixture):
    """A mixture and the test items by role."""

    test: dict[str, Sequence[Item]]


def draw_all(task: Task, *, test_size: int | None, **values: Any) -> Drawn:
    """Draw what `resolve` draws for these values."""
    mixture = draw(task, **values)
    shared = {name: values[name] for name in ("language", "difficulty", "data_dir")}
    test = draw_tests(task, test_size=test_size, **shared)
    return Drawn(train=mixture.train, validation=mixture.validation, test=test)
