"""Defines the fixed part of a study and turns a trial's parameters into a run plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tuning.dimensions.recipe import LEAST_BATCHES
from tuning.divergence import WORST_COST, WORST_F1
from tuning.halving.rungs import Rungs
from tuning.space import SEARCHED, Space, fits, known_points
from whichlora.caller import given_path
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.config.spec import canonical_digest
from whichlora.data.metric_names import metric_name
from whichlora.data.mixture import target_count, texts_digest, trained_count
from whichlora.data.tasks import Task, get_task
from whichlora.errors import OptionError, check_choice
from whichlora.models.loading import ModelShape
from whichlora.option_lists import within
from whichlora.text_tables import POINTS
from whichlora.variants import Variant

TUNING_SEED = 9_000
"""Seed of the trials; each repetition of a point uses the next seed."""
FRESH_SEEDS = (9_500, 9_501)
"""Seeds with which the best points are scored again: the winner of many trials on one seed was partly lucky."""
ROLES: Mapping[str, tuple[str, ...]] = {"en": ("en",), "tl": ("tl",), "mean": ("en", "tl")}
PRUNERS = ("median", "hyperband", "none")
KEEP = ("all", "best", "none")
"""Values of the option `keep_adapters`."""
COSTS: Mapping[str, str] = {"parameters": "adapter/trainable_parameters", "seconds": "train/seconds"}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The objective of a study: validation score of one or both languages, and optionally a cost to trade it against.

    Attributes:
        f1: `en` (source language), `tl` (target language) or `mean` (of both).
        metric: the headline metric of the task.
    """

    f1: str
    cost: str | None
    metric: str = "f1"

    @property
    def text(self) -> str:
        """The value of the option `objective`."""
        return self.f1 if self.cost is None else f"{self.f1},{self.cost}"

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """The directions of optimisation, one per value."""
        return ["maximize"] if self.cost is None else ["maximize", "minimize"]

    def values(self, metrics: Mapping[str, float]) -> list[float]:
        """Return the objective values, computed from a trial's metrics."""
        scores = [metrics[f"validation/{role}/{self.metric}"] for role in ROLES[self.f1]]
        return [sum(scores) / len(scores)] + ([] if self.cost is None else [metrics[COSTS[self.cost]]])

    def score_text(self, metrics: Mapping[str, float]) -> str:
        """Return the score of a trial for users, such as "F1 48.3"."""
        return f"{metric_name(self.metric)} {POINTS.text(self.values(metrics)[0])}"

    def for_task(self, task: Task) -> Objective:
        """Return the objective for a task: of its headline metric and, without a source language, of `tl` alone.

        Raises:
            OptionError: it is the score in the source language, which the task does not have.
        """
        if task.source is None and self.f1 == "en":
            raise OptionError("objective", self.text, f"{task.name} has no source language; allowed is tl")
        return replace(self, metric=task.headline, f1="tl" if task.source is None else self.f1)

    @property
    def worst(self) -> list[float]:
        """The objective values of a trial that diverged."""
        return [WORST_F1] + ([] if self.cost is None else [WORST_COST])


def parse_objective(text: str) -> Objective:
    """Parse the option `objective`: en, tl or mean, optionally followed by a comma and parameters or seconds.

    Raises:
        OptionError: the text has another form.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2:
        raise OptionError("objective", text, "must be a language and at most one cost, such as mean,parameters")
    try:
        cost = check_choice("objective", parts[1], COSTS) if len(parts) == 2 else None
        return Objective(f1=check_choice("objective", parts[0], ROLES), cost=cost)
    except OptionError as error:
        raise within(error, "objective", text) from error


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The fixed part of a study.

    Attributes:
        variant: the adapter method that is tuned.
        options: options of the runs; those that the study searches are None.
        shape: dimensions of the model.
        space: the search space.
        objective: what is optimised.
        pruner: name of the pruner.
        reports: number of reports of a trial, after equal shares of its steps; the pruner may stop it at each of them.
        rungs: the rungs of successive halving.
        largest_batch: the largest batch size of a known point; None for no limit.
        earlier: the space of the same study before `space` had a recipe, which may exist under another name; None if
            the study has a recipe by choice, or none.
    """

    variant: Variant
    options: RunOptions
    shape: ModelShape
    space: Space
    objective: Objective
    pruner: str
    reports: int
    rungs: Rungs
    largest_batch: int | None = None
    earlier: Space | None = None

    @property
    def known_points(self) -> dict[str, dict[str, Any]]:
        """The recommended and the matched point in the study's dimensions, by arm, if the model has their modules."""
        points = known_points(self.variant, self.shape, self.largest_batch)
        reduced = {arm: {name: point[name] for name in self.space.dimensions} for arm, point in points.items()}
        name = "target_modules"
        return {a: p for a, p in reduced.items() if name not in p or fits(name, p[name], self.variant, self.shape)}

    @property
    def tried_first(self) -> dict[str, dict[str, Any]]:
        """The known points that the space contains, by arm."""
        return {arm: point for arm, point in self.known_points.items() if point in self.space}

    @property
    def example(self) -> dict[str, Any]:
        """An arbitrary point of the study, a known one if possible."""
        return next(iter(self.known_points.values()), None) or self.space.lowest()

    @property
    def earlier_name(self) -> str | None:
        """The name of the study with the space `earlier`, if there is one."""
        return None if self.earlier is None else replace(self, space=self.earlier).name()

    @property
    def packed_example(self) -> dict[str, Any]:
        """A point that can train together with others, as far as the space has one: no dropout, a small batch."""
        dimensions = self.space.dimensions
        least = {name: dimensions[name].lowest for name in ("batch_size", "dropout") if name in dimensions}
        return self.example | least

    @functools.cached_property
    def train_size(self) -> int:
        """The number of training items, without those that are added to them, of a trial in the top rung."""
        return self.plan(self.example, TUNING_SEED).spec.train_size

    def plan(self, point: Mapping[str, Any], seed: int, *, rung: int | None = None) -> Plan:
        """Return the plan of a run with a point's values, in the arm `tuned`; by default on all items.

        The items of a lower rung are those of an ordinary run with a smaller `train_size`: the beginning of the same
        seeded order. Epochs, warm-up and decay are those of a training of its own.
        """
        options, settings = self.run(point, seed)
        if rung is not None and rung != self.rungs.top:
            options = replace(options, train_size=self.rungs.items(self.train_size, rung))
        return resolve(options, settings)

    def run(self, point: Mapping[str, Any], seed: int) -> tuple[RunOptions, dict[str, Any]]:
        """Return the options of a run with a point's values, and the settings that are the variant's own."""
        searched = {name: value for name, value in point.items() if name in SEARCHED}
        settings = {name: value for name, value in point.items() if name not in SEARCHED}
        return replace(self.options, variant=self.variant.name, arm="tuned", seed=seed, **searched), settings

    def recommended(self, seed: int) -> RunOptions:
        """Return the options of a run in the arm `recommended`: the method's own batch size, schedule and values."""
        return replace(self.options, variant=self.variant.name, arm="recommended", seed=seed)

    def check(self) -> None:
        """Check everything that can be checked without training.

        Raises:
            OptionError: an option is not allowed, or a language of the objective has no validation items.
        """
        mixture = self.plan(self.example, TUNING_SEED).mixture
        for role in ROLES[self.objective.f1]:
            if not mixture.validation[role]:
                language = get_task(self.options.task).source if role == "en" else self.options.language
                allowed = f"{self.options.task} has no validation items in {language}; choose another objective"
                raise OptionError("objective", self.objective.text, allowed)
        if self.rungs.halving:
            self._check_rungs()

    def _check_rungs(self) -> None:
        """Check that the lowest rung has enough items, in all languages of the training items.

        Raises:
            OptionError: it has not.
        """
        spec = self.plan(self.example, TUNING_SEED).spec
        for number in range(self.rungs.number, 0, -1):
            items = Rungs(number).items(spec.train_size, 0)
            targets = [target_count(spec.tl_ratio, size) for size in (items, spec.train_size)]
            sources = [
                trained_count(spec.tl_ratio, size, spec.composition) - target
                for size, target in zip((items, spec.train_size), targets, strict=True)
            ]
            in_all = all(bool(few) == bool(many) for few, many in (targets, sources))
            if items >= LEAST_BATCHES * (spec.batch_size or 1) and in_all:
                break
        if number < self.rungs.number:
            allowed = f"must be at most {number} with {spec.train_size} training items in batches of {spec.batch_size}"
            lowest = self.rungs.items(spec.train_size, 0)
            raise OptionError("rungs", self.rungs.number, f"{allowed}: the lowest rung would have {lowest}")

    def name(self) -> str:
        """Return the study's name: variant, model, task, language, and a digest of everything else that is fixed."""
        plan = self.plan(self.example, TUNING_SEED)
        spec = plan.spec
        not_fixed = {"arm", "seed", "variant_options", "test_size", "test_digests", "model", *self.space.dimensions}
        fixed = {
            "spec": {k: v for k, v in spec.identity.items() if k not in not_fixed},
            "options": {k: v for k, v in spec.variant_options.items() if k not in self.space.dimensions},
            "space": self.space.to_json(),
            "objective": self.objective.text,
            "pruner": self.pruner,
            "reports": self.reports if self.pruner != "none" else None,
            **({"rungs": self.rungs.number} if self.rungs.halving else {}),
            # The spec has the number that a rule gives at one of the ranks.
            **(
                {"alpha": rule}
                if isinstance(rule := self.options.alpha, str) and "rank" in self.space.dimensions
                else {}
            ),
            "validation": [
                texts_digest(plan.task, plan.mixture.validation[role], plan.model.chat(plan.task))
                for role in ROLES[self.objective.f1]
            ],
        }
        # The path of a model folder may differ between machines.
        model = f"folder-{spec.model_digest[:8]}" if given_path(spec.model).is_dir() else spec.model.rpartition("/")[2]
        return f"{spec.variant}/{model}/{spec.task}/{spec.language}/{canonical_digest(fixed)[:12]}"
