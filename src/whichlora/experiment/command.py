"""The command `experiment`: prints the plan of a grid of runs, runs what is missing, and resumes after interruptions.

`python -m whichlora.experiment --file experiments/smoke.yaml`
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.caller import given_path
from whichlora.command_line import BOOLEANS, FILE, Command, exit_with, parse_boolean
from whichlora.config.cli import WORKERS, check_pack, guarded
from whichlora.errors import OptionError, is_folder
from whichlora.experiment.folder_plan import folder_plan
from whichlora.experiment.grid import read_grid
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.scheduling.jobs import is_worker
from whichlora.text_tables import terminal_width

OPTIONS = {
    "file": (None, "YAML file of the experiment; with dry_run, also a folder of such files."),
    "dry_run": ("false", "Print the plan and stop: true or false."),
    **WORKERS,
}
COMMAND = Command(
    "experiment",
    "Run a grid of runs that a YAML file describes.\n\nPrints the plan, runs what is missing and resumes after any "
    "interruption. Several processes and machines may work on one experiment. A dry run of a folder prints runs, "
    "adapters and device-hours of each of its files.",
    OPTIONS,
    groups={"Experiment": ("file", "dry_run"), "Workers": tuple(WORKERS)},
    choices={"file": FILE, "dry_run": BOOLEANS, "engine": ENGINES},
    examples=(
        "whichlora experiment --file experiments/smoke.yaml --dry_run true",
        "whichlora experiment --file experiments/smoke.yaml --workers 2",
        "whichlora experiment --file experiments/paper --dry_run true",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, print the plan, and run what is missing.

    Under `accelerate launch` the first process does this, and the others join its training.

    Returns:
        The exit status: 2 for bad options, 1 if runs have no result.
    """
    texts = COMMAND.read(arguments)
    return guarded(lambda: distributed.run_on_leader(lambda: _run_command(texts), prepare=quiet), texts)


def _run_command(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    engine = engine_of(texts["engine"], texts["workers"])
    dry_run = parse_boolean("dry_run", texts["dry_run"])
    check_pack(texts["pack"])
    if not texts["file"]:
        raise OptionError("file", "", "must be the YAML file of an experiment")
    folder = given_path(texts["file"])
    if is_folder(folder):
        if not dry_run:
            raise OptionError("file", texts["file"], "is a folder, which can only be planned; add dry_run=true")
        print(folder_plan(folder, width=terminal_width()))
        return 0
    if not is_worker():
        print(f"Reading {texts['file']} and the datasets of its runs.", flush=True)
    grid = read_grid(texts["file"])

    # torch, transformers and MLflow take seconds to import, so options are checked first.
    from whichlora.experiment.pipeline import run_experiment

    return run_experiment(grid, engine=engine, dry_run=dry_run, file=texts["file"], pack=texts["pack"])


if __name__ == "__main__":
    exit_with(main)
