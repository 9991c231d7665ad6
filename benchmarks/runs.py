"""Serves the runs of a grid in one process of this project, each scored in two languages and tracked."""

from __future__ import annotations

from typing import Any

from benchmarks.ours import plan_of
from benchmarks.workers import Stopwatch, serve
from whichlora.models.memory import freeze_gc
from whichlora.models.quiet import quiet
from whichlora.run.base_scores import base_scores
from whichlora.run.pipeline import run
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker


class GridRuns:
    """A grid whose runs are trained and scored on request."""

    def load(self, *, model: str, cells: list[dict[str, Any]]) -> None:
        """Resolve the runs, open the tracking database and score the base model, whose scores the runs share."""
        quiet()
        self.plans = [plan_of(model, **cell) for cell in cells]
        freeze_gc()
        self.tracker = Tracker(connect(), "grid")
        base_scores(self.tracker, self.plans[0], known={})

    def run(self, *, number: int) -> dict[str, float]:
        """Train, score and track one run, and return its seconds."""
        with Stopwatch() as watch:
            run(self.plans[number], self.tracker)
        return watch.seconds()


if __name__ == "__main__":
    serve(GridRuns())
