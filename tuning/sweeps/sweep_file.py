"""Reads the YAML file of a sweep: the file of an experiment, in which `learning_rate` lists the rates of each arm.

name: my-sweep                  # the MLflow experiment
defaults: {task: xnli, language: hi, seed: [0, 1]}
arms:
  - {variant: [lora, dora], learning_rate: [1e-4, 2e-4, 5e-4]}
  - {variant: vera, learning_rate: [1e-3, 1e-2, 1e-1]}
sweep:
  best: 2                       # rates that are also trained with the other seeds
  extend: 1                     # rates that may be added where the best one is the lowest or the highest
  changes: {batch_size: [8, 32], epochs: [1, 4]}   # tried one at a time at the best rate, with all seeds
  minutes: 2.5                  # expected time of a training, until one is finished

All methods have equally many rates, the same seeds, and the same options but for those of the adapter. The keys of
`sweep` take precedence over those of a file that this one extends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from tuning.sweeps.methods import METHOD, POINT, Method, inequality, methods_of
from tuning.sweeps.stages import Rules
from whichlora.config.options import COSTS, RUN_OPTIONS, SCORED_BESIDE, parse_option
from whichlora.errors import OptionError, check_choice
from whichlora.experiment.experiment_file import read_experiment
from whichlora.yaml_files import Section

PACKAGED = Path(__file__).with_name("packaged.yaml")
"""The sweep behind the learning rates of the arm `matched`."""
_KEY = "sweep"
_SCORED = ("task", "difficulty", "language", "validation_size", "data_dir")
"""Options that decide which validation items are scored: results on different items are not compared."""
_NOT_IN_TRIALS = ("test_size", *SCORED_BESIDE, *COSTS)
"""Options that have no effect on a training or its validation."""


def _check_changes(changes: dict[str, Any]) -> dict[str, Any]:
    allowed = [option for option in RUN_OPTIONS if option not in (*METHOD, *POINT, *_SCORED, *_NOT_IN_TRIALS)]
    for name, values in changes.items():
        check_choice("changes", name, allowed)
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list of values")
        parsed = [parse_option(name, str(value)) for value in values]
        for index, value in enumerate(parsed):
            if value in parsed[:index]:
                raise OptionError("changes", f"{name}={values[index]}", "is in the list twice")
    return changes


class _Sweep(Section):
    best: Annotated[int | None, Field(ge=1)] = None
    extend: Annotated[int, Field(ge=0)] = 0
    changes: Annotated[dict[str, Any], AfterValidator(_check_changes)] = Field(default_factory=dict)
    minutes: Annotated[float | None, Field(gt=0, strict=False)] = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The content of a sweep's file; `minutes` is the expected time of a training, None if the file has none."""

    name: str
    about: str
    methods: Mapping[str, Method]
    rules: Rules
    minutes: float | None


def read_sweep(file: str) -> Sweep:
    """Read the file of a sweep.

    Raises:
        OptionError: it is missing or malformed, or an option is not allowed; the message names the line.
    """
    experiment = read_experiment(file, others=[_KEY])
    sections = [document for document in experiment.documents if _KEY in document.content]
    if not sections:
        experiment.documents[0].fail((), f"must have the key {_KEY}, such as {_KEY}: {{best: 2}}")
    given: dict[str, Any] = {}
    for document in reversed(sections):  # those of the extended files first
        section = document.parse(_Sweep, (_KEY,))
        given |= {name: getattr(section, name) for name in section.model_fields_set}
    parsed = _Sweep(**given)
    if parsed.best is None:
        sections[0].fail((_KEY,), f"{_KEY} lacks best")
    methods = methods_of(experiment)
    if problem := inequality(list(methods.values())):
        next(found for found in experiment.documents if "arms" in found.content).fail(("arms",), problem)
    changes = [f"{name}={value}" for name, values in parsed.changes.items() for value in values]
    return Sweep(
        name=experiment.name,
        about=experiment.about,
        methods=methods,
        rules=Rules(best=parsed.best, extend=parsed.extend, changes=changes),
        minutes=parsed.minutes,
    )
