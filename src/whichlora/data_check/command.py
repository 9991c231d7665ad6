"""The command `data`: `whichlora data check TASK`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import BOOLEANS, FOLDER, Command, Group, escape_what_cannot_be_shown, parse_boolean
from whichlora.config.cli import guarded
from whichlora.config.options import AUTO, CHOICES, COSTS, RUN_OPTIONS, SCORED_BESIDE, check_data_dir, parse_options
from whichlora.data.tasks import NAMES
from whichlora.models.quiet import quiet

_NOT_CHECKED = ("task", "tl_ratio", *COSTS, *SCORED_BESIDE)
"""Options of `run` that `check` lacks: it takes the task by position, shows several ratios, and checks one task."""
_OPTIONS = {
    **{name: entry for name, entry in RUN_OPTIONS.items() if name not in _NOT_CHECKED},
    "language": (AUTO, "Target language, as of run; auto: each of the languages that the task pools."),
    "estimate": ("true", "Whether to train and score a few items to estimate the time of a run: true or false."),
}
_CHECK = ("language", "data_dir", "model", "estimate")
COMMAND = Group(
    "data",
    "Check the data of a task.",
    (
        Command(
            "check",
            "Show the data of TASK (a name, or the path of a YAML file) as runs with these options will use it.\n\n"
            "These are files, items, labels, repeated items, lengths in the model's tokens, prompts with their "
            "answers, training items at several ratios, shallow baselines, and an estimate of a run's time on this "
            "machine. Nothing is tracked.",
            _OPTIONS,
            groups={"Check": _CHECK, "Run": [name for name in _OPTIONS if name not in _CHECK]},
            choices={**CHOICES, "model": FOLDER, "data_dir": FOLDER, "estimate": BOOLEANS},
            positional={"task": NAMES},
            examples=(
                "whichlora data check ./reviews.yaml --language tr",
                "whichlora data check xnli --data_dir DIR --model ./my-model --estimate false",
            ),
            program="whichlora data check",
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the data of a task. Return the exit status: 2 for a bad task or bad options."""
    _, texts = COMMAND.read(arguments)
    return guarded(lambda: _check(texts), texts)


def _check(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    escape_what_cannot_be_shown()
    measured = parse_boolean("estimate", texts["estimate"])
    values = {name: text for name, text in texts.items() if name != "estimate"}
    options = parse_options(values)
    check_data_dir(options.data_dir)

    with announced("Loading packages and the data."):
        from whichlora.data_check.pipeline import check  # torch and transformers take seconds to import

    check(options, values, measured=measured)
    return 0
