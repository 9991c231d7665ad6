"""The command `predict`: `python -m whichlora.predict --run_id ID --input FILE`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import FILE, FOLDER, Command
from whichlora.config.cli import guarded
from whichlora.models.quiet import quiet
from whichlora.predict.options import OPTIONS, parse

COMMAND = Command(
    "predict",
    "Predict the rows of a table with the model of a run, a registered model, or one in a folder.\n\nThe output has "
    "the columns of the input, the column predicted, and for labels their probabilities, p_LABEL.",
    OPTIONS,
    groups={"Model": ("run_id", "model", "base"), "Table": ("input", "output", "batch_size")},
    choices={"model": FOLDER, "base": FOLDER, "input": FILE, "output": FILE},
    examples=(
        "whichlora predict --run_id ID --input texts.csv --output labels.csv",
        "whichlora predict --model my-model@champion --input texts.parquet --output labels.parquet",
        "whichlora predict --model ./my-adapter --input - < texts.jsonl",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, predict, and write the table. Return the exit status: 2 for bad options or a bad table."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _predict(texts), texts)


def _predict(texts: Mapping[str, str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    request = parse(texts)

    with announced("Loading packages."):
        from whichlora.predict.pipeline import predict  # torch, transformers and MLflow take seconds to import

    predict(request)
    return 0
