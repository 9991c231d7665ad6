"""The command `probe`: `python -m whichlora.probing --run_id ID`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import FOLDER, Command
from whichlora.config.cli import guarded
from whichlora.errors import check_text
from whichlora.models.quiet import quiet
from whichlora.probing.options import CHOICES, GROUPS, OPTIONS
from whichlora.probing.request import by_language, parse
from whichlora.text_tables import terminal_width

COMMAND = Command(
    "probe",
    "Measure what the layers of a model represent, as an MLflow run of kind probe.\n\nThe model is that of a finished "
    "run, or a base model. The value auto takes the value of the run, the task or the preset.",
    OPTIONS,
    groups=GROUPS,
    choices={**CHOICES, "model": FOLDER, "data_dir": FOLDER},
    examples=(
        "whichlora probe --run_id ID",
        "whichlora probe --kind alignment --language tr",
        "whichlora probe --kind alignment --pairs tatoeba --data_dir LASER --language tr,az,kk",
        "whichlora probe --kind weights --run_id ID --against OTHER_ID",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, probe, and print the id of the run. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    return guarded(lambda: _probe(texts), texts)


def _probe(texts: Mapping[str, str]) -> int:
    for option, text in texts.items():
        check_text(option, text)
    request = parse(texts)

    # torch, transformers and MLflow take seconds to import, so options are checked first.
    with announced("Preparing the probe: packages, the model and what it reads.", logged=True):
        from whichlora.probing.alignment import languages
        from whichlora.probing.pipeline import check, probe
        from whichlora.tracking.client import database_exists, require_database
        from whichlora.tracking.runs import Tracker
        from whichlora.tracking.views import ui_command

    for option, run_id in (("run_id", request.run_id), ("against", getattr(request.choices, "against", None))):
        if run_id not in (None, "base"):
            require_database(option, run_id)
    requests = by_language(request)
    if not database_exists():
        for each in requests:
            check(each)  # so that a refusal leaves no empty database
    tracker = Tracker.for_command()
    run_ids = probe(requests, tracker)
    tracker.link_launch(run_ids[-1])
    if len(run_ids) > 1:
        print(languages.comparison([tracker.client.get_run(run_id) for run_id in run_ids], width=terminal_width()))
    ui = ui_command()
    place = f" (`{ui}`)" if ui else ""
    for each, run_id in zip(requests, run_ids, strict=True):
        language = f" ({each.language})" if len(run_ids) > 1 else ""
        print(f"MLflow run {run_id}{language}; its figures are among its artifacts{place}")
    return 0
