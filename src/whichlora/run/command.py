"""The command `run`: `python -m whichlora.run --variant vera`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from whichlora.command_line import FOLDER, Command
from whichlora.config.cli import report_option_error
from whichlora.config.options import CHOICES, GROUPS, RUN_OPTIONS, parse_options
from whichlora.config.resolve import resolve
from whichlora.errors import DamagedError, MemoryExhausted, OptionError, ProofError
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed

COMMAND = Command(
    "run",
    "Train one adapter, score it, and track it in MLflow.\n\nThe value auto takes the value of the arm or the task. "
    "Finished runs are not repeated; interrupted runs resume.",
    RUN_OPTIONS,
    groups=GROUPS,
    choices={**CHOICES, "model": FOLDER, "data_dir": FOLDER},
    examples=(
        "whichlora run --variant vera --language sw",
        "whichlora run --variant dora --arm recommended --task atlas-qa --seed 1",
        "accelerate launch --multi_gpu --num_processes 4 -m whichlora.run --variant lora --batch_size 8",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, and print a summary. Return the exit status: 2 for bad options.

    Under `accelerate launch` the first process does this, and the others join its training.
    """
    texts = COMMAND.read(arguments)
    return distributed.run_on_leader(lambda: _run_command(texts), prepare=quiet)


def _run_command(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    try:
        plan = resolve(parse_options(texts))

        # torch, transformers and MLflow take seconds to import, so options are checked first.
        from whichlora.models.memory import freeze_gc
        from whichlora.run.pipeline import run
        from whichlora.run.summary import summary
        from whichlora.tracking.runs import Tracker

        freeze_gc()
        tracker = Tracker.for_command()
        result = run(plan, tracker)
    except OptionError as error:
        return report_option_error(error)
    except (ProofError, MemoryExhausted, DamagedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tracker.link_launch(result.run_id)
    print(summary(plan, result))
    return 0
