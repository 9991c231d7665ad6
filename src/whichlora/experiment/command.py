"""A grid of runs from a YAML file: prints the plan, does what is missing, and resumes after any stop.

`python -m whichlora.experiment --file experiments/smoke.yaml`
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from whichlora.command_line import BOOLEANS, FILE, Command
from whichlora.config.cli import WORKER_OPTIONS, check_pack, report_option_error
from whichlora.errors import OptionError, check_choice
from whichlora.experiment.grid import read_grid
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.scheduling.jobs import is_worker

OPTIONS = {
    "file": (None, "YAML file of the experiment."),
    "dry_run": ("false", "Print the plan and stop: true or false."),
    **WORKER_OPTIONS,
}
COMMAND = Command(
    "experiment",
    "Do the runs of a grid that a YAML file describes.\n\nPrints the plan, does the runs that are missing and resumes "
    "after any interruption. Several processes and machines may work on one experiment.",
    OPTIONS,
    groups={"Experiment": ("file", "dry_run"), "Workers": tuple(WORKER_OPTIONS)},
    choices={"file": FILE, "dry_run": BOOLEANS, "engine": ENGINES},
    examples=(
        "whichlora experiment --file experiments/smoke.yaml --dry_run true",
        "whichlora experiment --file experiments/smoke.yaml --workers 2",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, print the plan, and carry it out.

    Under `accelerate launch` the first process does all this, and the others train with it.

    Returns:
        the exit status: 2 for bad options, 1 if runs are left without a result.
    """
    texts = COMMAND.read(arguments)
    return distributed.run_on_leader(lambda: _lead(texts), prepare=quiet)


def _lead(given: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    try:
        engine = engine_of(given["engine"], given["workers"])
        dry_run = check_choice("dry_run", given["dry_run"].lower(), BOOLEANS) == "true"
        check_pack(given["pack"])
        if not is_worker():
            print(f"Reading {given['file']} and the items of its runs.", flush=True)
        grid = read_grid(given["file"])

        # torch, transformers and MLflow take seconds to import, so bad options are refused first.
        from whichlora.experiment.pipeline import run_experiment

        return run_experiment(grid, engine=engine, dry_run=dry_run, file=given["file"], pack=given["pack"])
    except OptionError as error:
        return report_option_error(error)


if __name__ == "__main__":
    sys.exit(main())
