"""Reads an experiment's YAML file and resolves it into runs.

    name: smoke                     # the MLflow experiment
    about: What the file is for.
    defaults:                       # options of `run`; a list stands for each of its values
      language: [sw, ur]
      seed: [1, 2, 3]
    arms:                           # what is compared; each with every combination of the defaults
      - {variant: lora}
      - {variant: lora, arm: recommended, source: "Table 11 of the paper"}

An arm's options take precedence over the defaults. `options` holds a variant's own settings, as in
`options: {rate_ratio: 4}`. `source` documents where an arm's values come from and has no effect.

    extends: paper/table-02-main.yaml   # another file, found from this one, which provides the missing keys
    defaults: {model: my/model}         # these take precedence over its defaults

Files with the same name belong to one MLflow experiment, and a run that two of them contain exists once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from whichlora.config.options import RUN_OPTIONS, RunOptions, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError
from whichlora.experiment.experiment_file import Experiment, read_experiment

MAX_RUNS = 100_000
_Prepared = TypeVar("_Prepared")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of an experiment, ordered by seed, so that an experiment stopped early has complete replications."""

    name: str
    about: str
    plans: Sequence[Plan]

    def cells(self) -> dict[str, list[Plan]]:
        """Return the runs by training fingerprint; the runs of a cell share one adapter."""
        cells: dict[str, list[Plan]] = {}
        for plan in self.plans:
            cells.setdefault(plan.spec.training_fingerprint, []).append(plan)
        return cells


def read_grid(file: str) -> Grid:
    """Read and resolve an experiment.

    Raises:
        OptionError: The file is missing or malformed, or one of its runs has an invalid option.
    """
    experiment = read_experiment(file)
    plans: dict[str, Plan] = {}
    for plan in each_run(experiment, resolve):
        plans.setdefault(plan.spec.fingerprint, plan)
    precisions = sorted({plan.spec.precision for plan in plans.values()})
    if len(precisions) > 1:
        allowed = f"must have one precision, so that methods are comparable; has {precisions}"
        raise OptionError("file", file, allowed)
    return Grid(name=experiment.name, about=experiment.about, plans=list(plans.values()))


def each_run(experiment: Experiment, prepare: Callable[[RunOptions, Mapping[str, Any]], _Prepared]) -> list[_Prepared]:
    """Return what `prepare` makes of the options of each run and the variant's own settings.

    Raises:
        OptionError: a run has an invalid option; the message names the file, the line and the run.
    """
    prepared = []
    for options, arm in _runs(experiment):
        texts = {name: default for name, (default, _) in RUN_OPTIONS.items()} | options
        try:
            prepared.append(prepare(parse_options(texts), experiment.settings[arm]))
        except OptionError as error:
            run = " ".join(f"{name}={value}" for name, value in options.items())
            experiment.fail(arm, error.option, f"in the run {run}: {error}")
    return prepared


def _runs(experiment: Experiment) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the options of each run and the number of its arm, by seed, then combination of defaults, then arm."""
    ordered = []
    for arm_index, (arm, arm_options) in enumerate(
        (arm, options) for arm, values in enumerate(experiment.arms) for options in _combinations(values)
    ):
        shared = {name: values for name, values in experiment.defaults.items() if name not in arm_options}
        seeds = {"seed": shared.pop("seed")} if "seed" in shared else {}
        for index, combination in enumerate(_combinations(shared)):
            for seed_index, seed in enumerate(_combinations(seeds)):
                ordered.append(((seed_index, index, arm_index), ({**combination, **seed, **arm_options}, arm)))
                if len(ordered) > MAX_RUNS:
                    experiment.fail(arm, "", f"the file describes more than {MAX_RUNS} runs")
    yield from (run for _, run in sorted(ordered, key=lambda pair: pair[0]))


def _combinations(options: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield every combination of option values; the last option varies fastest."""
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))
