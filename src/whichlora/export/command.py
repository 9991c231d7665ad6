"""The command `export`: `python -m whichlora.export --run_id ID`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import BOOLEANS, FOLDER, Command
from whichlora.config.cli import guarded
from whichlora.config.options import PRECISIONS
from whichlora.export.options import FORMS, OPTIONS, parse
from whichlora.models.quiet import quiet

COMMAND = Command(
    "export",
    "Write the adapter of a run or trial to a folder, or its base model with the adapter merged, for others.\n\nBeside "
    "the weights lie a model card and the tokenizer. The predictions of a merged model are compared with those of the "
    "adapter.",
    OPTIONS,
    groups={"Export": ("run_id", "form", "output", "base", "precision"), "Hub": ("push_to", "dry_run")},
    choices={
        **{"form": FORMS, "precision": PRECISIONS, "dry_run": BOOLEANS},
        **{"output": FOLDER, "base": FOLDER},
    },
    examples=(
        "whichlora export --run_id ID --output my-adapter",
        "whichlora export --run_id ID --form merged --output my-model",
        "whichlora export --run_id ID --push_to someone/my-adapter --dry_run true",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, export, and print what was written. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _export(texts), texts)


def _export(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    request = parse(texts)

    # torch, transformers and MLflow take seconds to import, so options are checked first.
    with announced("Loading packages."):
        from whichlora.export.hub import check_repository, push
        from whichlora.export.pipeline import export
        from whichlora.tracking.client import connect, require_database
        from whichlora.tracking.launch import mark_launch

    if request.push_to is not None:
        check_repository(request.push_to)
    require_database("run_id", request.run_id)
    client = connect()
    mark_launch(client)
    print(export(request, client))
    if request.push_to is not None and not request.dry_run:
        print(push(request.output, request.push_to))
    return 0
