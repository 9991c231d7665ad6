"""The methods of a sweep, and the check that their trainings are equal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tuning.sweeps.stages import Point
from whichlora.config.options import AUTO, RunOptions, parse_option
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError
from whichlora.experiment.experiment_file import Experiment
from whichlora.experiment.grid import each_run

METHOD, POINT = ("variant", "arm"), ("learning_rate", "seed")
"""Options that name a method, and those of a point of a sweep."""
_ADAPTER = ("rank", "alpha", "target_modules", "layers", "pool_layer", "first_token", "quantization")
"""Further options in which the methods of a sweep may differ."""


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

    @property
    def recipe(self) -> str:
        """The options that a sweep's methods have in common, as JSON."""
        own = (*METHOD, *POINT, *_ADAPTER)
        return json.dumps({name: value for name, value in vars(self.options).items() if name not in own})

    @property
    def adapter(self) -> str:
        """The options and settings in which methods may differ, as JSON."""
        options = [getattr(self.options, name) for name in (*METHOD, *_ADAPTER)]
        return json.dumps([options, dict(self.settings)], sort_keys=True)

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


def methods_of(experiment: Experiment) -> dict[str, Method]:
    """Return the methods of a sweep's file by name.

    Raises:
        OptionError: an option is not allowed, or an arm has no rates; the message names the line.
    """
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
    names = [field.name for field in fields(options) if field.name not in (*METHOD, *POINT)]
    parts = [f"{name}={getattr(options, name)}" for name in names if len({str(getattr(o, name)) for o, _ in alike}) > 1]
    parts += [f"{name}={value}" for name, value in settings.items() if any(s.get(name) != value for _, s in alike)]
    return " ".join([f"{options.variant}{arm}", *parts])


def inequality(methods: Sequence[Method]) -> str | None:
    """Return in what the methods have unequal trainings; None if they are equal.

    Several recipes, such as two numbers of epochs, are equal if every method has all of them.
    """
    first, *rest = methods
    for method in rest:
        if len(method.rates) != len(first.rates):
            counts = f"{first.name} has {len(first.rates)} and {method.name} has {len(method.rates)}"
            return f"all methods must have equally many rates: {counts}"
        if method.seeds != first.seeds:
            return f"all methods must have the same seeds: {first.name} has {first.seeds}, {method.name} {method.seeds}"
    recipes: dict[str, dict[str, Method]] = {}
    for method in methods:
        recipes.setdefault(method.adapter, {})[method.recipe] = method
    usual, *others = recipes.values()
    for found in others:
        if different := found.keys() ^ usual.keys():
            method = (found | usual)[min(different)]
            return _difference(method, next(iter((usual if method in found.values() else found).values())))
    return None


def _difference(method: Method, other: Method) -> str:
    """Return the options in which two methods should not differ."""
    recipes = [json.loads(each.recipe) for each in (method, other)]
    names = [name for name in recipes[0] if recipes[0][name] != recipes[1][name]]
    values = [
        ", ".join(f"{name}={AUTO if found[name] is None else found[name]}" for name in names) for found in recipes
    ]
    return f"all methods must have the same options: {method.name} has {values[0]} and {other.name} has {values[1]}"
