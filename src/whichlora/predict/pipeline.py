"""Carries out a prediction: the rows are checked before the model is loaded, and predicted in parts."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from whichlora.announcements import announced
from whichlora.config.cli import format_duration
from whichlora.errors import OptionError, printable
from whichlora.predict.finding import model_folder
from whichlora.predict.options import Request
from whichlora.predict.reading import read_input
from whichlora.predict.writing import writer
from whichlora.serving import saved
from whichlora.serving.inputs import items_of
from whichlora.serving.predictor import Predictor

PART = 10_000
"""Rows that are predicted and written at once: a whole table of tokens would take more memory than the model."""


def predict(request: Request) -> None:
    """Predict the rows of a table, and write them with their predictions, in the same order.

    Raises:
        OptionError: there is no such model, its base is not found, or the table cannot be read, predicted or written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(request.run_id, request.model, Path(scratch))
        model = saved.read(folder)
        frame, form = read_input(request.input, model.input.texts, shown=request.shown)
        try:
            items_of(frame, model, model.task.task())  # names the rows that cannot be predicted
            with announced(f"Loading {model.name}."):  # finds the base model first
                predictor = Predictor.load(folder, request.base)
            names = _names(predictor, frame.columns)
            start = time.monotonic()
            with writer(request.output, form, frame) as write:
                for first in range(0, len(frame), PART):
                    part = frame.iloc[first : first + PART]
                    found = predictor.predict(part, request.batch_size).rename(columns=names)
                    write(pd.concat([part, found], axis=1))
        except OptionError as error:
            if error.option.startswith("input"):
                raise OptionError("input", request.shown, _located(error)) from error
            raise
    seconds = time.monotonic() - start
    where = "" if request.output is None else f", written to {request.output}"
    rows = "1 row" if len(frame) == 1 else f"{len(frame):,} rows"
    print(printable(f"{rows} predicted in {format_duration(seconds)}{where}"), file=sys.stderr)


def _located(error: OptionError) -> str:
    """Return an error about a row without the name of the option, which may have the row."""
    place = str(error.value)
    if ": " in error.option:
        place = f"{error.option.partition(': ')[2]} {place}"
    return error.allowed if place.endswith(" rows") else f"{place}: {error.allowed}"


def _names(predictor: Predictor, taken: Collection[object]) -> dict[str, str]:
    """Return other names for the columns of predictions that the input has already, with a number, and say so."""
    names = ["predicted", *(f"p_{label}" for label in predictor.labels)]
    changed = {}
    for name in names:
        number = 2
        while name in taken and f"{name}_{number}" in {*taken, *names}:
            number += 1
        if name in taken:
            changed[name] = f"{name}_{number}"
    if changed:
        listed = ", ".join(f"{old} is {new}" for old, new in changed.items())
        print(printable(f"The input has columns of the same name, so in the output {listed}."), file=sys.stderr)
    return changed
