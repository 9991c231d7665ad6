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
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from tuning.sweeps.stages import Point, Rules
from whichlora.config.options import RUN_OPTIONS, RunOptions, parse_option
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError, check_choice
from whichlora.experiment.experiment_file import Experiment, read_experiment
from whichlora.experiment.grid import each_run
from whichlora.yaml_files import Section

PACKAGED = Path(__file__).with_name("packaged.yaml")
"""The sweep behind the learning rates of the arm `matched`."""
_KEY = "sweep"
_FIXED = ("variant", "arm", "learning_rate", "seed")
"""Options that `changes` cannot have."""


def _check_changes(changes: dict[str, Any]) -> dict[str, Any]:
    for name, values in changes.items():
        check_choice("changes", name, [option for option in RUN_OPTIONS if option not in _FIXED])
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list of values")
        for value in values:
            parse_option(name, str(value))
    return changes


class _Sweep(Section):
    best: Annotated[int, Field(ge=1)]
    extend: Annotated[int, Field(ge=0)] = 0
    changes: Annotated[dict[str, Any], AfterValidator(_check_changes)] = Field(default_factory=dict)
    minutes: Annotated[float | None, Field(gt=0, strict=False)] = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """What has a learning rate of its own in a sweep: an arm's variant, with the options that it is trained with.

    Attributes:
        name: variant and arm, and the options that distinguish it from other methods.
        options: the options of its runs; rate and seed are those of the first point.
        rates: learning rates in ascending order.
    """

    name: str
    options: RunOptions
    settings: Mapping[str, Any]
    rates: Sequence[float]
    seeds: Sequence[int]

    def plan(self, point: Point) -> Plan:
        """Return the plan of a point.

        Raises:
            OptionError: an option is not allowed.
        """
        changes: dict[str, Any] = {"learning_rate": point.rate, "seed": point.seed}
        if point.change:
            name, _, text = point.change.partition("=")
            changes[name] = parse_option(name, text)
        return resolve(replace(self.options, **changes), self.settings)


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
    document = next((document for document in experiment.documents if _KEY in document.content), None)
    if document is None:
        experiment.documents[0].fail((), f"must have the key {_KEY}, such as {_KEY}: {{best: 2}}")
    parsed = document.parse(_Sweep, (_KEY,))
    changes = [f"{name}={value}" for name, values in parsed.changes.items() for value in values]
    return Sweep(
        name=experiment.name,
        about=experiment.about,
        methods=_methods(experiment),
        rules=Rules(best=parsed.best, extend=parsed.extend, changes=changes),
        minutes=parsed.minutes,
    )


def _methods(experiment: Experiment) -> dict[str, Method]:
    runs: dict[str, list[tuple[RunOptions, Mapping[str, Any]]]] = {}
    for options, settings in each_run(experiment, _with_a_rate):
        same = replace(options, learning_rate=None, seed=0)
        runs.setdefault(json.dumps([vars(same), dict(settings)], sort_keys=True), []).append((options, settings))
    firsts = [found[0] for found in runs.values()]
    methods = {}
    for found, (options, settings) in zip(runs.values(), firsts, strict=True):
        name = _name(options, settings, firsts)
        methods[name] = Method(
            name=name,
            options=options,
            settings=settings,
            rates=sorted({run.learning_rate for run, _ in found if run.learning_rate is not None}),
            seeds=list(dict.fromkeys(run.seed for run, _ in found)),
        )
    return methods


def _with_a_rate(options: RunOptions, settings: Mapping[str, Any]) -> tuple[RunOptions, Mapping[str, Any]]:
    if options.learning_rate is None:
        raise OptionError("learning_rate", "auto", "must list the rates of the sweep")
    return options, settings


def _name(
    options: RunOptions, settings: Mapping[str, Any], others: Sequence[tuple[RunOptions, Mapping[str, Any]]]
) -> str:
    """Return the variant, with the arm if that is not `matched`, and what differs from methods of the same name."""
    arm = "" if options.arm == "matched" else f"-{options.arm}"
    alike = [(o, s) for o, s in others if (o.variant, o.arm) == (options.variant, options.arm)]
    names = [field.name for field in fields(options) if field.name not in _FIXED]
    parts = [f"{name}={getattr(options, name)}" for name in names if len({str(getattr(o, name)) for o, _ in alike}) > 1]
    parts += [f"{name}={value}" for name, value in settings.items() if any(s.get(name) != value for _, s in alike)]
    return " ".join([f"{options.variant}{arm}", *parts])
