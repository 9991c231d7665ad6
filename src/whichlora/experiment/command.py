"""A grid of runs from a YAML file: prints the plan, does what is missing, goes on after any stop.

`python -m whichlora.experiment --file experiments/smoke.yaml`
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from whichlora.config.cli import PACK, parse_arguments, refuse
from whichlora.errors import LostClaimError, OptionError, choose
from whichlora.experiment.grid import Grid, read_grid
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.scheduling.jobs import Job, is_worker

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.experiment.progress import Progress, Survey
    from whichlora.scheduling.jobs import Engine
    from whichlora.scheduling.queue import Queue
    from whichlora.tracking.runs import Tracker

OPTIONS = {
    "file": (None, "YAML file of the experiment"),
    "dry_run": ("false", "print the plan and stop: true or false"),
    "engine": ("local", f"where the runs are done: {', '.join(ENGINES)}"),
    "workers": ("1", "processes on this machine, or tasks of Ray; start the same command elsewhere for more"),
    "pack": PACK,
}


def work(
    cells: Mapping[str, Sequence[Plan]], queue: Queue, tracker: Tracker, progress: Progress, *, pack: int = 1
) -> None:
    """Do what waits in the queue, with any other process that does the same, until nothing is left.

    A cell is an adapter: one run trains it, and every run that it serves is scored. `pack` adapters train at once.
    """
    from dataclasses import replace

    from whichlora.run.pipeline import run

    def do(cell: str, check: Callable[[], None]) -> None:
        errors = []
        for plan in cells[cell]:
            try:
                result = run(plan, replace(tracker, claim=check))
            except LostClaimError as error:
                progress.failed(plan, error)
                raise
            except Exception as error:  # the cell's other runs may do
                progress.failed(plan, error)
                traceback.print_exc()
                errors.append(error)
                continue
            progress.finished(plan, result)
        if errors:
            raise errors[0]

    queue.work(do, stop=distributed.out_of_sync, pack=pack)


def carry_out(grid: Grid, tracker: Tracker, found: Survey, *, engine: Engine | None, file: str, pack: int) -> None:
    """Do the grid's runs that were not `found` to be done, here or with an engine's workers."""
    from whichlora.config.spec import canonical_digest
    from whichlora.experiment.progress import Progress
    from whichlora.scheduling.queue import Queue, connect

    cells = grid.cells()
    # An edited file is another queue: its workers know other runs.
    runs = sorted(plan.spec.fingerprint for plan in grid.plans)
    queue = Queue(f"{grid.name}/{canonical_digest(runs)[:16]}", connect())
    if not is_worker():
        missing = [c for c, plans in cells.items() if any(p.spec.fingerprint not in found.done for p in plans)]
        queue.offer(missing, missing_at=found.time)
    with Progress(grid, tracker, shown=not is_worker()) as progress:
        if engine is None:
            work(cells, queue, tracker, progress, pack=pack)
        else:
            died = engine.run(
                Job("whichlora.experiment.command", ["--file", file, "--pack", str(pack)]), progress.refresh
            )
            if died:
                print(f"{len(died)} of {engine.workers} workers ended early: {'; '.join(died)}.", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, print the plan, and carry it out.

    Under `accelerate launch` the first process does all this, and the others train with it.

    Returns:
        the exit status: 2 for bad options, 1 if runs are left without a result.
    """
    return distributed.run_on_leader(lambda: _lead(arguments), prepare=quiet)


def _lead(arguments: Sequence[str] | None) -> int:
    given = parse_arguments(arguments, __doc__.splitlines()[0] if __doc__ else "", OPTIONS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    from whichlora.experiment.progress import survey_runs
    from whichlora.models.memory import freeze_gc
    from whichlora.tracking.runs import Tracker

    try:
        engine = engine_of(given["engine"], given["workers"])
        dry_run = choose("dry_run", given["dry_run"].lower(), ("true", "false")) == "true"
        if not is_worker():
            print(f"Reading {given['file']} and the items of its runs.", flush=True)
        grid = read_grid(given["file"])
        from whichlora.training.multi_adapter import parse_pack

        pack = parse_pack(given["pack"], grid.plans)
        freeze_gc()
        quiet()
        tracker = Tracker.of_call(grid.name)
        found = survey_runs(grid, tracker)
        precision = {plan.spec.precision for plan in grid.plans}
        if found.precisions - precision:
            allowed = f"the experiment has runs in {', '.join(found.precisions)}; name that precision in the file"
            raise OptionError("precision", ", ".join(precision), allowed)
        if engine is not None and not dry_run:
            engine.connect()
    except OptionError as error:
        return refuse(error)
    if not is_worker():
        print(found.text(grid, workers=engine.workers if engine else 1), flush=True)
    if dry_run:
        return 0
    carry_out(grid, tracker, found, engine=engine, file=given["file"], pack=pack)
    if is_worker():
        return 0
    failures = survey_runs(grid, tracker).failures(grid)
    print(f"{len(grid.plans) - len(failures)} of {len(grid.plans)} runs are done.")
    for name, reason in failures.items():
        print(f"  without a result: {name}: {reason}")
    if failures:
        print("The same command tries them again.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
