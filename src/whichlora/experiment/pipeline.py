"""Runs an experiment: finds the missing runs, queues them, and processes the queue or starts workers for it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from whichlora.config.cli import next_commands
from whichlora.config.failures import explain
from whichlora.config.plan import Plan
from whichlora.config.spec import canonical_digest
from whichlora.data.tasks import PairTask
from whichlora.errors import LostLeaseError, OptionError, printable
from whichlora.experiment.grid import Grid
from whichlora.experiment.progress import Progress, survey_runs
from whichlora.experiment.results_table import results_table
from whichlora.masking import masked
from whichlora.models.memory import freeze_gc
from whichlora.parallel import distributed
from whichlora.run import seed_summary
from whichlora.run.pipeline import run
from whichlora.scheduling import storage
from whichlora.scheduling.jobs import Engine, Job, is_worker, run_workers
from whichlora.scheduling.queue import Queue, connect
from whichlora.text_tables import terminal_width
from whichlora.tracking.client import check_writable, create_work_folder, database_exists, experiment_id
from whichlora.tracking.experiment_page import results_line, store_about
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import parse_pack


def run_experiment(grid: Grid, *, engine: Engine | None, dry_run: bool, file: str, pack: str) -> int:
    """Print the plan of a grid and, unless this is a dry run, run what is missing.

    Args:
        grid: the runs of the experiment.
        engine: runs the workers; None runs everything in this process.
        dry_run: whether to print the plan only.
        file: the YAML file of the grid, for the workers of an engine.
        pack: the option `pack` as text: number of runs to train at once.

    Returns:
        The exit status: 1 if runs have no result.

    Raises:
        OptionError: runs cannot be packed, the experiment has runs of another precision, workers cannot start, or this
            user cannot write results.
    """
    pack_size = parse_pack(pack, grid.plans)
    freeze_gc()
    if not dry_run:
        create_work_folder()
        storage.check_configured()
    # A dry run writes nothing, not even an empty database.
    tracker = None if dry_run and not database_exists() else Tracker.for_command(grid.name)
    survey = survey_runs(grid, tracker)
    precision = {plan.spec.precision for plan in grid.plans}
    if survey.precisions - precision:
        allowed = f"the experiment has runs in {', '.join(survey.precisions)}; set that precision in the file"
        raise OptionError("precision", ", ".join(precision), allowed)
    if engine is not None and not dry_run:
        engine.connect()
    if not is_worker():
        client = tracker.client if tracker else None
        print(survey.text(grid, workers=engine.workers if engine else 1, client=client), flush=True)
    if dry_run or tracker is None:
        return 0
    if is_worker() or survey.done.keys() < {plan.spec.fingerprint for plan in grid.plans}:
        check_writable()
        storage.check_writable()
        store_about(tracker.client, experiment_id(tracker.client, grid.name), grid.about)
        _run_missing(grid, tracker, engine=engine, file=file, pack=pack_size)
    if is_worker():
        return 0
    survey = survey_runs(grid, tracker)
    seed_summary.mend(grid.plans, tracker, survey.done)
    failures = survey.failures(grid)
    if survey.done:
        print(results_table(grid, survey.done, width=terminal_width()))
    print(f"{len(grid.plans) - len(failures)} of {len(grid.plans)} runs are done.")
    print(results_line(tracker.client, tracker.experiment))
    for name, reason in failures.items():
        print(printable(f"  no result: {name}: {reason}"))
    if failures:
        print("Run the same command again to retry them.")
    if survey.done:
        pairs = all(isinstance(plan.task, PairTask) for plan in grid.plans)  # whose models predict no tables
        print(next_commands(grid.name, use="export" if pairs else "predict", register=not pairs))
    return 1 if failures else 0


def _run_missing(grid: Grid, tracker: Tracker, *, engine: Engine | None, file: str, pack: int) -> None:
    """Run what is missing, in this process or with the workers of an engine."""
    if engine is None:
        run_missing(grid, tracker, pack=pack, offer=not is_worker())
        return
    _offer_missing(grid, tracker, _queue_of(grid))
    with Progress(grid, tracker, shown=True) as progress:
        job = Job("whichlora.experiment.command", ["--file", file, "--pack", str(pack)])
        run_workers(engine, job, progress.refresh)


def run_missing(grid: Grid, tracker: Tracker, *, pack: int, offer: bool = True) -> None:
    """Run what is missing of a grid in this process, together with others that do the same, until nothing is waiting.

    Args:
        pack: number of adapters to train at once.
        offer: whether to queue what is missing; False if another process has done so.
    """
    queue = _queue_of(grid)
    if offer:
        _offer_missing(grid, tracker, queue)
    with Progress(grid, tracker, shown=not is_worker()) as progress:
        _process_queue(grid.cells(), queue, tracker, progress, pack=pack)


def _queue_of(grid: Grid) -> Queue:
    """Return the queue of a grid; an edited file gets a new one, because workers of the old know different runs."""
    runs = sorted(plan.spec.fingerprint for plan in grid.plans)
    return Queue(f"{grid.name}/{canonical_digest(runs)[:16]}", connect())


def _offer_missing(grid: Grid, tracker: Tracker, queue: Queue) -> None:
    completed = queue.completed()  # read before the runs: a cell that is completed in between is not repeated
    done = survey_runs(grid, tracker).done
    missing = [c for c, plans in grid.cells().items() if any(p.spec.fingerprint not in done for p in plans)]
    queue.offer(missing, completed=completed)


def _process_queue(
    cells: Mapping[str, Sequence[Plan]], queue: Queue, tracker: Tracker, progress: Progress, *, pack: int = 1
) -> None:
    """Process the queue, together with other processes that process_cell the same, until it is empty.

    A cell is an adapter: its first run trains it, and all runs that use it are scored. `pack` adapters train at once.
    """

    def process_cell(cell: str, check_lease: Callable[[], None]) -> None:
        errors = []
        for plan in cells[cell]:
            try:
                result = run(plan, replace(tracker, check_lease=check_lease))
            except LostLeaseError as error:
                progress.failed(plan, error)
                raise
            except Exception as error:  # the other runs of the cell may succeed
                progress.failed(plan, error)
                if explain(error) is None:
                    print(masked(traceback.format_exc()), end="", file=sys.stderr)
                errors.append(error)
                continue
            progress.finished(plan, result)
        if errors:
            raise errors[0]

    queue.work(process_cell, stop=distributed.out_of_sync, pack=pack)
