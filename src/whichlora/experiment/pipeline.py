"""Carries out an experiment: queues the runs that have not finished, and does them here or starts workers."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from whichlora.config.plan import Plan
from whichlora.config.spec import canonical_digest
from whichlora.errors import LostLeaseError, OptionError
from whichlora.experiment.grid import Grid
from whichlora.experiment.progress import Progress, Survey, survey_runs
from whichlora.models.memory import freeze_gc
from whichlora.parallel import distributed
from whichlora.run.pipeline import run
from whichlora.scheduling.jobs import Engine, Job, is_worker
from whichlora.scheduling.queue import Queue, connect
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import parse_pack


def run_experiment(grid: Grid, *, engine: Engine | None, dry_run: bool, file: str, pack: str) -> int:
    """Print the plan of a grid and do the missing runs, unless it is a dry run.

    Args:
        engine: starts the workers; None if this process does the runs.
        file: path of the grid's YAML file, which workers read again.
        pack: value of the option `pack`, the number of runs that train at once.

    Returns:
        the exit status: 1 if runs are left without a result.

    Raises:
        OptionError: runs cannot be packed, the experiment has runs of another precision, or workers cannot start.
    """
    pack_size = parse_pack(pack, grid.plans)
    freeze_gc()
    tracker = Tracker.for_command(grid.name)
    survey = survey_runs(grid, tracker)
    precision = {plan.spec.precision for plan in grid.plans}
    if survey.precisions - precision:
        allowed = f"the experiment has runs in {', '.join(survey.precisions)}; set that precision in the file"
        raise OptionError("precision", ", ".join(precision), allowed)
    if engine is not None and not dry_run:
        engine.connect()
    if not is_worker():
        print(survey.text(grid, workers=engine.workers if engine else 1), flush=True)
    if dry_run:
        return 0
    _do_missing(grid, tracker, survey, engine=engine, file=file, pack=pack_size)
    if is_worker():
        return 0
    failures = survey_runs(grid, tracker).failures(grid)
    print(f"{len(grid.plans) - len(failures)} of {len(grid.plans)} runs are done.")
    for name, reason in failures.items():
        print(f"  without a result: {name}: {reason}")
    if failures:
        print("Run the same command again to retry them.")
    return 1 if failures else 0


def _do_missing(grid: Grid, tracker: Tracker, survey: Survey, *, engine: Engine | None, file: str, pack: int) -> None:
    """Do the grid's unfinished runs in this process or with the engine's workers."""
    cells = grid.cells()
    # The name contains the runs, because workers of an earlier version of the file do not know the new ones.
    runs = sorted(plan.spec.fingerprint for plan in grid.plans)
    queue = Queue(f"{grid.name}/{canonical_digest(runs)[:16]}", connect())
    if not is_worker():
        missing = [c for c, plans in cells.items() if any(p.spec.fingerprint not in survey.done for p in plans)]
        queue.offer(missing, missing_at=survey.time)
    with Progress(grid, tracker, shown=not is_worker()) as progress:
        if engine is None:
            _work(cells, queue, tracker, progress, pack=pack)
        else:
            died = engine.run(
                Job("whichlora.experiment.command", ["--file", file, "--pack", str(pack)]), progress.refresh
            )
            if died:
                print(f"{len(died)} of {engine.workers} workers ended early: {'; '.join(died)}.", file=sys.stderr)


def _work(
    cells: Mapping[str, Sequence[Plan]], queue: Queue, tracker: Tracker, progress: Progress, *, pack: int = 1
) -> None:
    """Process the cells in the queue, concurrently with other workers, until none is left.

    A cell is one adapter: its first run trains the adapter, and its other runs reuse it. `pack` adapters train at once.
    """

    def do(cell: str, check: Callable[[], None]) -> None:
        errors = []
        for plan in cells[cell]:
            try:
                result = run(plan, replace(tracker, check_lease=check))
            except LostLeaseError as error:
                progress.failed(plan, error)
                raise
            except Exception as error:  # the cell's other runs may succeed
                progress.failed(plan, error)
                traceback.print_exc()
                errors.append(error)
                continue
            progress.finished(plan, result)
        if errors:
            raise errors[0]

    queue.work(do, stop=distributed.out_of_sync, pack=pack)
