"""The command `experiment`: `python -m whichlora.experiment --file experiments/smoke.yaml`."""

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
    "Run a grid of runs described in a YAML file.\n\nPrints the plan, does the missing runs and resumes after any "
    "interruption. Several processes and machines may work on one experiment.",
    OPTIONS,
    groups={"Experiment": ("file", "dry_run"), "Workers": tuple(WORKER_OPTIONS)},
    choices={"file": FILE, "dry_run": BOOLEANS, "engine": ENGINES},
    examples=(
        "whichlora experiment --file experiments/smoke.yaml --dry_run true",
        "whichlora experiment --file experiments/smoke.yaml --workers 2",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan of an experiment and do the missing runs.

    Under `accelerate launch` only rank 0 does this; the other ranks join it for training.

    Returns:
        the exit status: 2 for an invalid option, 1 if runs are left without a result.
    """
    texts = COMMAND.read(arguments)
    return distributed.run_on_leader(lambda: _lead(texts), prepare=quiet)


def _lead(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    try:
        engine = engine_of(texts["engine"], texts["workers"])
        dry_run = check_choice("dry_run", texts["dry_run"].lower(), BOOLEANS) == "true"
        check_pack(texts["pack"])
        if not is_worker():
            print(f"Reading {texts['file']} and the items of its runs.", flush=True)
        grid = read_grid(texts["file"])

        # Imported after the options are checked, because torch, transformers and MLflow take seconds to import.
        from whichlora.experiment.pipeline import run_experiment

        return run_experiment(grid, engine=engine, dry_run=dry_run, file=texts["file"], pack=texts["pack"])
    except OptionError as error:
        return report_option_error(error)


if __name__ == "__main__":
    sys.exit(main())
