"""What an experiment's runs have come to, as the tracking server records them: the plan, the bar, the time left."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from whichlora.config.cli import format_duration
from whichlora.data.mixture import trained_count
from whichlora.run.summary import short_scores
from whichlora.tracking.client import experiment_id, search_all

if TYPE_CHECKING:
    from mlflow.entities import Run

    from whichlora.config.plan import Plan
    from whichlora.experiment.grid import Grid
    from whichlora.run.summary import Result
    from whichlora.tracking.runs import Tracker

_REFRESH_SECONDS = 10.0
_LOG_SECONDS = 60.0
"""Between two lines of a log, which stands in for the bar where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The grid's finished and failed runs by fingerprint, and the precisions of all runs of the experiment.

    Attributes:
        others: how many finished runs of the experiment are none of the grid's.
        time: when the tracking server was asked, in seconds since the epoch.
    """

    done: Mapping[str, Run]
    failed: Mapping[str, Run]
    precisions: frozenset[str]
    others: int
    time: float

    def failures(self, grid: Grid) -> dict[str, str]:
        """Return the runs of the grid without a result, by name, with the reason."""
        left = [plan for plan in grid.plans if plan.spec.fingerprint not in self.done]
        return {
            plan.name: failed.data.tags.get("whichlora.error", "failed without a reason")
            if (failed := self.failed.get(plan.spec.fingerprint))
            else "not run"
            for plan in left
        }

    def text(self, grid: Grid, *, workers: int) -> str:
        """Return the plan for a person: how many runs there are, what they have come to, and the time left."""
        rows: dict[str, Counter[str]] = defaultdict(Counter)
        for plan in grid.plans:
            state = self._state(plan)
            rows[f"{plan.spec.variant}, {plan.spec.arm}"][state] += 1
            rows["all"][state] += 1
        total = rows.pop("all")
        lines = [f"{grid.name}: {' '.join(grid.about.split())}".rstrip(": ")]
        lines.append(f"{len(grid.plans)} runs with {len(grid.cells())} adapters: {_counts(total)}")
        lines += [f"  {method}: {_counts(counts)}" for method, counts in rows.items()]
        if self.others:
            lines.append(
                f"{self.others} more finished {'run' if self.others == 1 else 'runs'} of the experiment {grid.name} "
                "with other values or of another version, which a report of it compares too: give the file another "
                "name to keep them out."
            )
        lines.append(self._time_left(grid, workers))
        return "\n".join(lines)

    def seconds_left(self, grid: Grid) -> float | None:
        """Return the device-seconds that the missing runs should take, by the finished ones; None if there is none."""
        rates: dict[str, list[float]] = defaultdict(list)
        scoring: list[float] = []
        for plan in grid.plans:
            run = self.done.get(plan.spec.fingerprint)
            if run is None:
                continue
            trained = run.data.metrics.get("train/seconds", 0.0)
            adopted = "whichlora.adapter_of" in run.data.tags
            if trained and not adopted:
                rates[plan.spec.variant].append(trained / _examples(plan))
            packed = run.data.metrics.get("train/packed", 1) > 1
            if not packed and "whichlora.resumed" not in run.data.tags:  # their duration holds other runs, or a pause
                scoring.append((run.info.end_time - run.info.start_time) / 1000 - (0.0 if adopted else trained))
        if not rates and not scoring:
            return None
        every = [rate for of_variant in rates.values() for rate in of_variant]
        trained_already = {p.spec.training_fingerprint for p in grid.plans if p.spec.fingerprint in self.done}
        seconds = 0.0
        for plan in grid.plans:
            if plan.spec.fingerprint not in self.done:
                seconds += median(scoring) if scoring else 0.0
                if plan.spec.training_fingerprint not in trained_already and every:
                    trained_already.add(plan.spec.training_fingerprint)
                    seconds += median(rates.get(plan.spec.variant) or every) * _examples(plan)
        return seconds

    def _state(self, plan: Plan) -> str:
        fingerprint = plan.spec.fingerprint
        return "done" if fingerprint in self.done else "failed" if fingerprint in self.failed else "missing"

    def _time_left(self, grid: Grid, workers: int) -> str:
        if all(plan.spec.fingerprint in self.done for plan in grid.plans):
            return "Nothing is left to do."
        seconds = self.seconds_left(grid)
        if seconds is None:
            return "Time left: not known until a run has finished."
        together = f", {workers} at a time" if workers > 1 else ""
        by = "the finished run" if len(self.done) == 1 else f"the {len(self.done)} finished runs"
        return f"Time left: about {format_duration(seconds / workers)}{together}, by {by}."


def survey_runs(grid: Grid, tracker: Tracker) -> Survey:
    """Ask the tracking server what the grid's runs have come to."""
    asked = time.time()
    wanted = {plan.spec.fingerprint for plan in grid.plans}
    done: dict[str, Run] = {}
    failed: dict[str, Run] = {}
    precisions = set()
    others = 0
    for run in _runs(tracker):
        precisions.add(run.data.params.get("precision", ""))
        fingerprint = run.data.tags.get("whichlora.fingerprint", "")
        if fingerprint in wanted:
            if run.info.status == "FINISHED":
                done[fingerprint] = run
            elif run.info.status == "FAILED":
                failed[fingerprint] = run
        elif run.info.status == "FINISHED":
            others += 1
    return Survey(
        done=done,
        failed={fingerprint: run for fingerprint, run in failed.items() if fingerprint not in done},
        precisions=frozenset(precisions - {""}),
        others=others,
        time=asked,
    )


class Progress:
    """A bar over the whole grid, whichever process does a run, and a line for each run of this process.

    Without a terminal a line says now and then what the bar would: so the log of a long experiment tells how far it is.
    """

    def __init__(self, grid: Grid, tracker: Tracker, *, shown: bool) -> None:
        self._grid, self._tracker = grid, tracker
        self._bar: Any = tqdm(total=len(grid.plans), desc=grid.name, unit="run", disable=None if shown else True)
        self._shown, self._told = shown, 0
        self._asked = time.monotonic()
        self.refresh(at_once=not self._bar.disable)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:
            self.refresh(at_once=True)
        self._bar.close()

    def refresh(self, *, at_once: bool = False) -> None:
        """Move the bar to what the tracking server says, unless it was asked a moment ago."""
        rest = _LOG_SECONDS if self._bar.disable else _REFRESH_SECONDS
        if not self._shown or not (at_once or time.monotonic() - self._asked > rest):
            return
        self._asked = time.monotonic()
        try:
            now = survey_runs(self._grid, self._tracker)
        except MlflowException:  # the server is away for a moment; the work goes on
            return
        seconds = now.seconds_left(self._grid)
        left = f"about {format_duration(seconds)} of work left" if seconds else ""
        state = ", ".join(filter(None, [f"{len(now.failed)} failed" if now.failed else "", left]))
        if not self._bar.disable:
            self._bar.n = len(now.done)
            self._bar.set_postfix_str(state)
        elif len(now.done) != self._told:
            print(f"{len(now.done)} of {len(self._grid.plans)} runs done" + f", {state}" * bool(state), flush=True)
        self._told = len(now.done)

    def finished(self, plan: Plan, result: Result) -> None:
        """Say what a run came to."""
        self._say(f"done: {plan.name}: {short_scores(plan, result.metrics)}")

    def failed(self, plan: Plan, error: Exception) -> None:
        """Say why a run failed."""
        self._say(f"failed: {plan.name}: {type(error).__name__}: {error}")

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        self.refresh()


def _examples(plan: Plan) -> int:
    spec = plan.spec
    return trained_count(spec.tl_ratio, spec.train_size, spec.composition) * (spec.epochs or 0)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in ("done", "failed", "missing") if counts[state])


def _runs(tracker: Tracker) -> Iterator[Run]:
    """Yield every run of kind `run` in the experiment, page by page."""
    where = [experiment_id(tracker.client, tracker.experiment)]
    yield from search_all(tracker.client.search_runs, where, "tags.`whichlora.kind` = 'run'")
