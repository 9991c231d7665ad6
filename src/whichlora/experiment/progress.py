"""Shows the progress of an experiment, read from its runs in MLflow: state of the grid, progress bar, time left."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tqdm import tqdm

from whichlora.config.cli import format_duration
from whichlora.config.failures import explain
from whichlora.config.plan import Plan
from whichlora.errors import printable
from whichlora.experiment.device_hours import plans_line
from whichlora.experiment.grid import Grid
from whichlora.masking import masked
from whichlora.run.durations import Durations, known_durations
from whichlora.run.summary import Result, short_scores
from whichlora.tracking.client import find_experiment, search_all
from whichlora.tracking.runs import Tracker

_REFRESH_SECONDS = 10.0
_LOG_SECONDS = 60.0
"""Seconds between two of the lines that replace the progress bar when there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """State of an experiment's runs on the tracking server.

    Attributes:
        done, failed: the grid's finished and failed runs, by fingerprint.
        precisions: the precisions of all runs of the experiment.
        others: number of finished runs of the experiment that are not in the grid.
    """

    done: Mapping[str, Run]
    failed: Mapping[str, Run]
    precisions: frozenset[str]
    others: int

    def failures(self, grid: Grid) -> dict[str, str]:
        """Return the reason why a run has no result, by name of the run, for the grid's unfinished runs."""
        unfinished = [plan for plan in grid.plans if plan.spec.fingerprint not in self.done]
        return {
            plan.name: failed.data.tags.get("whichlora.error", "failed without an error message")
            if (failed := self.failed.get(plan.spec.fingerprint))
            else "not run"
            for plan in unfinished
        }

    def text(self, grid: Grid, *, workers: int, client: MlflowClient | None = None) -> str:
        """Return a printable summary of the grid: the number of runs, their states, and the time left.

        Before a run has finished, the time left is estimated from other experiments, which `client` reads.
        """
        rows: dict[str, Counter[str]] = defaultdict(Counter)
        for plan in grid.plans:
            state = self._state(plan)
            rows[f"{plan.spec.variant}, {plan.spec.arm}"][state] += 1
            rows["all"][state] += 1
        total = rows.pop("all")
        lines = [f"{grid.name}: {' '.join(grid.about.split())}".rstrip(": ")]
        lines.append(f"{len(grid.plans)} runs with {len(grid.cells())} adapters: {_counts(total)}")
        lines += [f"  {method}: {_counts(counts)}" for method, counts in rows.items()]
        left_out = {plan.spec.model: plan.not_adapted for plan in grid.plans if plan.not_adapted}
        lines += [f"Not adapted in {model} (share of the blocks' weights): {text}" for model, text in left_out.items()]
        if self.others:
            lines.append(
                f"{self.others} more finished {'run' if self.others == 1 else 'runs'} of the experiment {grid.name} "
                "with other values or of another version, which its report includes too; change the name in the file "
                "to exclude them."
            )
        lines += filter(None, [plans_line(grid.plans), self._time_left(grid, workers, client)])
        return "\n".join(lines)

    def seconds_left(self, grid: Grid) -> float | None:
        """Estimate the device-seconds of the missing runs from the finished ones; None if no run has finished."""
        missing = [plan for plan in grid.plans if plan.spec.fingerprint not in self.done]
        trained = {p.spec.training_fingerprint for p in grid.plans if p.spec.fingerprint in self.done}
        return Durations.of(self.done.values()).total(missing, trained)

    def _state(self, plan: Plan) -> str:
        fingerprint = plan.spec.fingerprint
        return "done" if fingerprint in self.done else "failed" if fingerprint in self.failed else "missing"

    def _time_left(self, grid: Grid, workers: int, client: MlflowClient | None) -> str:
        if all(plan.spec.fingerprint in self.done for plan in grid.plans):
            return "Nothing is left to do."
        seconds, count, where = self.seconds_left(grid), len(self.done), ""
        if seconds is None and client is not None:
            known = known_durations(client, grid.plans[0])
            seconds, count, where = known.total(grid.plans), known.count, " of other experiments on this machine"
        if seconds is None:
            return "Time left: not known until a run has finished; the first training shows an estimate."
        parallel = f" with {workers} workers" if workers > 1 else ""
        basis = "the finished run" if count == 1 else f"the {count} finished runs"
        return f"Time left: about {format_duration(seconds / workers)}{parallel}, estimated from {basis}{where}."


def survey_runs(grid: Grid, tracker: Tracker | None) -> Survey:
    """Read the state of the grid's runs from the tracking server; without one nothing has run."""
    wanted = {plan.spec.fingerprint for plan in grid.plans}
    done: dict[str, Run] = {}
    failed: dict[str, Run] = {}
    precisions = set()
    others = 0
    for run in _runs(tracker) if tracker else ():
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
    )


class Progress:
    """Shows a progress bar over the grid's runs, from all processes, and prints a line for each run of this process.

    Without a terminal the bar is replaced by a line every `_LOG_SECONDS`, so that log files show the progress.
    """

    def __init__(self, grid: Grid, tracker: Tracker, *, shown: bool) -> None:
        self._grid, self._tracker = grid, tracker
        self._bar: Any = tqdm(total=len(grid.plans), desc=grid.name, unit="run", disable=None if shown else True)
        self._shown, self._printed_count = shown, 0
        self._refreshed = time.monotonic()
        self.refresh(force=not self._bar.disable)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:
            self.refresh(force=True)
        self._bar.close()

    def refresh(self, *, force: bool = False) -> None:
        """Update the bar from the tracking server; without `force` at most every `_REFRESH_SECONDS`."""
        interval = _LOG_SECONDS if self._bar.disable else _REFRESH_SECONDS
        if not self._shown or not (force or time.monotonic() - self._refreshed > interval):
            return
        self._refreshed = time.monotonic()
        try:
            survey = survey_runs(self._grid, self._tracker)
        except MlflowException:  # a short outage of the server must not stop the work
            return
        seconds = survey.seconds_left(self._grid)
        left = f"about {format_duration(seconds)} of work left" if seconds else ""
        state = ", ".join(filter(None, [f"{len(survey.failed)} failed" if survey.failed else "", left]))
        if not self._bar.disable:
            self._bar.n = len(survey.done)
            self._bar.set_postfix_str(state)
        elif len(survey.done) != self._printed_count:
            print(f"{len(survey.done)} of {len(self._grid.plans)} runs done" + f", {state}" * bool(state), flush=True)
        self._printed_count = len(survey.done)

    def finished(self, plan: Plan, result: Result) -> None:
        """Print the scores of a finished run."""
        self._print(f"done: {plan.name}: {short_scores(plan, result.metrics)}")

    def failed(self, plan: Plan, error: Exception) -> None:
        """Print why a run failed."""
        self._print(f"failed: {plan.name}: {explain(error) or f'{type(error).__name__}: {error}'}")

    def _print(self, line: str) -> None:
        tqdm.write(printable(masked(line)), file=sys.stdout)
        sys.stdout.flush()
        self.refresh()


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in ("done", "failed", "missing") if counts[state])


def _runs(tracker: Tracker) -> Iterator[Run]:
    """Yield every run of kind `run` in the experiment."""
    experiment = find_experiment(tracker.client, tracker.experiment)
    if experiment is not None:
        yield from search_all(tracker.client.search_runs, [experiment.experiment_id], "tags.`whichlora.kind` = 'run'")
