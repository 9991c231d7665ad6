"""Sweeps learning rates equally for all variants.

    python -m tuning.learning_rates [VARIANT ...]
    python -m tuning.learning_rates --file tuning/sweeps/real-text.yaml --workers 2

Without a file this is the sweep behind the learning rates of the arm `matched`. No test items are scored. Finished
trainings are reused: a second call prints the tables at once, and a killed one is resumed by the same command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tuning.sweeps.sweep_file import PACKAGED, read_sweep
from whichlora.command_line import BOOLEANS, FILE, Command, exit_with, parse_boolean
from whichlora.config.cli import WORKERS, guarded
from whichlora.config.options import AUTO, CHOICES
from whichlora.errors import check_choice
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of

KEEP = ("all", "none")
_WORKERS = {name: WORKERS[name] for name in ("engine", "workers")}
OPTIONS = {
    "file": (AUTO, "YAML file of the sweep; auto is that of the learning rates of the arm matched."),
    "dry_run": ("false", "Only print how many trainings are missing, and the tables of the others: true or false."),
    "keep_adapters": ("all", "Trainings of which the adapters are kept: all or none."),
    **_WORKERS,
}
COMMAND = Command(
    "learning-rates",
    "Sweep learning rates equally for all methods of a file, or for the named variants, and print the tables.\n\n"
    "The sweep can also try other batch sizes, epochs and warm-ups at the best rate. Runs what is missing and resumes "
    "after any interruption; several processes and machines may work on one sweep.",
    OPTIONS,
    groups={"Sweep": ("file", "dry_run", "keep_adapters"), "Workers": tuple(_WORKERS)},
    positional={"variant...": CHOICES["variant"]},
    choices={"file": FILE, "dry_run": BOOLEANS, "keep_adapters": KEEP, "engine": ENGINES},
    program="python -m tuning.learning_rates",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing trainings of the sweep and print its tables. Return the exit status: 1 if some have no result."""
    texts = COMMAND.read(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    return guarded(lambda: _sweep(texts), texts)


def _sweep(texts: Mapping[str, Any]) -> int:
    distributed.check_starts_alone("the sweep")
    engine = engine_of(texts["engine"], texts["workers"])
    dry_run = parse_boolean("dry_run", texts["dry_run"])
    keep = check_choice("keep_adapters", texts["keep_adapters"], KEEP)
    sweep = read_sweep(str(PACKAGED) if texts["file"] == AUTO else texts["file"])
    variants = dict.fromkeys(method.options.variant for method in sweep.methods.values())
    chosen = [check_choice("variant", name, list(variants)) for name in texts["variant"]] or list(variants)

    # torch and MLflow take seconds to import, so options are checked first.
    from tuning.sweeps.pipeline import run_sweep

    arguments = [*texts["variant"], "--file", texts["file"], "--keep_adapters", keep]
    return run_sweep(sweep, chosen, engine=engine, dry_run=dry_run, keep=keep == "all", arguments=arguments)


if __name__ == "__main__":
    exit_with(main)
