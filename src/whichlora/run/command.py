"""The command `run`: `python -m whichlora.run --variant vera`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.announcements import announce, announced
from whichlora.command_line import FOLDER, Command
from whichlora.config.cli import guarded, next_commands
from whichlora.config.options import CHOICES, GROUPS, RUN_OPTIONS, parse_options
from whichlora.config.resolve import resolve
from whichlora.data.tasks import PairTask
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.text_tables import terminal_width

COMMAND = Command(
    "run",
    "Train one adapter, score it, and track it in MLflow.\n\nThe value auto takes the value of the arm or the task. "
    "Finished runs are not repeated; interrupted runs resume.",
    RUN_OPTIONS,
    groups=GROUPS,
    choices={**CHOICES, "model": FOLDER, "data_dir": FOLDER, "alignment_dir": FOLDER},
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
    return guarded(lambda: distributed.run_on_leader(lambda: _run_command(texts), prepare=quiet), texts)


def _run_command(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    options = parse_options(texts)
    with announced("Preparing the run: packages, items of the task and tokenizer.", logged=True):
        plan = resolve(options)

        # torch, transformers and MLflow take seconds to import, so options are checked first.
        from whichlora.models.memory import freeze_gc
        from whichlora.run.durations import estimate_text, known_durations
        from whichlora.run.pipeline import run
        from whichlora.run.summary import summary
        from whichlora.tracking.client import create_work_folder
        from whichlora.tracking.experiment_page import results_line
        from whichlora.tracking.runs import Tracker

    freeze_gc()
    create_work_folder()
    tracker = Tracker.for_command()
    if tracker.find("run", status="FINISHED", fingerprint=plan.spec.fingerprint) is None:
        announce(estimate_text(known_durations(tracker.client, plan), plan))
    result = run(plan, tracker)
    tracker.link_launch(result.run_id)
    print(summary(plan, result, width=terminal_width()))
    use = "predict" if not isinstance(plan.task, PairTask) else "export" if plan.variant.trains else None
    print(next_commands(tracker.experiment, run_id=result.run_id, use=use))
    print(results_line(tracker.client, tracker.experiment))
    return 0
