"""Runs the missing trainings of a sweep and prints its tables."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from tuning.sweeps.best_arms import rate_text
from tuning.sweeps.progress import Progress
from tuning.sweeps.stages import Point
from tuning.sweeps.sweep_file import Sweep
from tuning.sweeps.tables import tables
from whichlora.config.failures import explain
from whichlora.errors import LostLeaseError, NonFiniteError, printable
from whichlora.masking import masked
from whichlora.models.memory import freeze_gc
from whichlora.run.pipeline import trial
from whichlora.scheduling import storage
from whichlora.scheduling.jobs import Engine, Job, is_worker, run_workers
from whichlora.scheduling.queue import Queue, connect
from whichlora.tracking.client import check_writable, create_work_folder, database_exists, experiment_id
from whichlora.tracking.experiment_page import TRIALS, results_line, store_about
from whichlora.tracking.runs import Tracker


def run_sweep(
    sweep: Sweep,
    variants: Sequence[str],
    *,
    engine: Engine | None,
    dry_run: bool,
    keep: bool,
    arguments: Sequence[str],
) -> int:
    """Run what is missing in a sweep, in this process or with the workers of an engine, and print its tables.

    Args:
        sweep: the content of its file.
        variants: those of the methods to run and to print.
        engine: runs the workers; None runs everything in this process.
        dry_run: whether to run nothing: only the number of trainings and the tables of the finished ones are printed.
        keep: whether to log the adapters.
        arguments: the arguments of the command, for the workers.

    Returns:
        The exit status: 1 if trainings have no result.

    Raises:
        OptionError: an option of a training is not allowed, workers cannot start, or this user cannot write results.
    """
    freeze_gc()
    if not dry_run:
        create_work_folder()
        storage.check_configured()
    # A dry run writes nothing, not even an empty database.
    tracker = None if dry_run and not database_exists() else Tracker.for_command(sweep.name)
    progress = Progress(sweep=sweep, variants=variants, tracker=tracker)
    progress.check()
    survey = progress.survey()
    if not is_worker():
        print(progress.text(survey, workers=engine.workers if engine else 1), file=sys.stderr, flush=True)
    if dry_run or tracker is None:
        if survey.results:
            print(tables(progress, survey))
        return 0
    if survey.missing:
        if engine is not None:
            engine.connect()
        check_writable()
        storage.check_writable()
        store_about(tracker.client, experiment_id(tracker.client, sweep.name), sweep.about)
        if engine is None:
            _run_rounds(progress, tracker, keep=keep)
        else:
            run_workers(engine, Job("tuning.learning_rates", arguments))
        survey = progress.survey()
    if is_worker():
        return 0
    print(tables(progress, survey))
    print(results_line(tracker.client, tracker.experiment, TRIALS), file=sys.stderr)
    for point in survey.missing:
        print(printable(f"no result: {_title(point)}"), file=sys.stderr)
    if survey.missing:
        print("Run the same command again to retry them.", file=sys.stderr)
    return 1 if survey.missing else 0


def _run_rounds(progress: Progress, tracker: Tracker, *, keep: bool) -> None:
    """Run what the methods need now, together with other processes, until they need nothing or nothing gets done.

    Every process can run every point, since a cell of the queue says all that the sweep's file does not.
    """
    queue = Queue(f"sweep/{progress.sweep.name}/{progress.identity[:16]}", connect())

    def process_cell(cell: str, check_lease: Callable[[], None]) -> None:
        point = Point(*json.loads(cell))
        try:
            result = trial(progress.plan(point), replace(tracker, check_lease=check_lease), keep=lambda metrics: keep)
        except LostLeaseError:
            raise
        except Exception as error:
            reason = explain(error)
            print(printable(f"failed: {_title(point)}: {reason or masked(repr(error))}"), file=sys.stderr, flush=True)
            if reason is None and not isinstance(error, NonFiniteError):
                print(masked(traceback.format_exc()), end="", file=sys.stderr)
            raise
        seconds = result.metrics.get("train/seconds", 0)
        print(printable(f"done: {_title(point)}, {seconds:.0f} s of training"), file=sys.stderr, flush=True)

    done = -1
    while True:
        completed = queue.completed()  # read before the results: a cell that is completed in between is not repeated
        survey = progress.survey()
        if not survey.missing or len(survey.results) == done:
            return
        done = len(survey.results)
        queue.offer([json.dumps(point) for point in survey.missing], completed=completed)
        queue.work(process_cell)


def _title(point: Point) -> str:
    return " ".join(filter(None, [point.method, f"rate {rate_text(point.rate)}", point.change, f"seed {point.seed}"]))
