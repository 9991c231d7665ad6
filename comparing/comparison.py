"""A comparison: its methods and its rule, what identifies it, and the runs of each round."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comparing.rule import Rule
from tuning.tuned import Tuned
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.config.spec import canonical_digest
from whichlora.models.memory import freeze_gc


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a method trains with each seed in one language and ratio, as options of `run` and the variant's own."""

    method: str
    options: RunOptions
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of methods.

    Attributes:
        experiment: name of the MLflow experiment; None for the default one.
        about: what the experiment is for.
        cells: all methods in all languages and ratios.
        tuned: what tuning has found for each cell; empty if it was not used.
        tuning_seconds: device-seconds of tuning, or the most that it may take if it is still to be done.
    """

    experiment: str | None
    about: str
    cells: tuple[Cell, ...]
    rule: Rule
    tuned: tuple[Tuned, ...] = ()
    tuning_seconds: float = 0.0
    _plans: dict[tuple[int, int], Plan] = field(default_factory=dict, repr=False)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods, in the order in which they were given."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    def plans(self, seed: int, methods: Collection[str] | None = None) -> dict[str, list[Plan]]:
        """Return the runs of a round by method; each is resolved once.

        Args:
            methods: those that run; None for all.
        """
        found: dict[str, list[Plan]] = {}
        for index, cell in enumerate(self.cells):
            if methods is None or cell.method in methods:
                if (seed, index) not in self._plans:
                    self._plans[seed, index] = resolve(replace(cell.options, seed=seed), cell.settings)
                    freeze_gc()
                found.setdefault(cell.method, []).append(self._plans[seed, index])
        return found

    @property
    def settings(self) -> list[dict[str, Any]]:
        """What tuning has found as JSON: for each method, language and ratio an arm, and what it rests on."""
        return [
            {
                "method": cell.method,
                "language": cell.options.language,
                "tl_ratio": cell.options.tl_ratio,
                "arm": tuned.arm,
                "study": tuned.study,
                "run_id": tuned.run_id,
                "score": tuned.best and tuned.best.score,
                "edges": tuned.undecided,
                "seconds": tuned.seconds + tuned.fresh_seconds,
            }
            for cell, tuned in zip(self.cells, self.tuned, strict=False)
        ]

    def resolution(self, language: str | None = None) -> float:
        """Return the steps of a method's score in points: those of one test set's right answers over the root of the
        number of results that the score is the mean of.

        Results are those of languages and ratios; in the source language, those of different adapters, because one that
        serves several languages counts once.

        Args:
            language: one target language alone; None for all.
        """
        plans = next(iter(self.plans(self.rule.rounds[0]).values()))
        plans = [plan for plan in plans if language in (None, plan.spec.language)]
        items = min(len(test.items) for plan in plans for test in plan.tests.values() if test.trained)
        results = len(plans)
        if self.rule.primary != "tl":
            results = len({plan.spec.training_fingerprint for plan in plans})
        return 100 / items / math.sqrt(results)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be fixed before the first seed, as JSON: another value is another comparison.

        The runs of the first seed stand for the methods with all their settings, and for data, languages and ratios.
        """
        rule, first = self.rule, self.rule.rounds[0]
        return {
            "kind": "comparison",
            "margin": rule.margin,
            "confidence": rule.confidence,
            "primary": rule.primary,
            "max_seeds": rule.max_seeds,
            "seeds": list(rule.rounds),
            "methods": sorted(sorted(p.spec.fingerprint for p in plans) for plans in self.plans(first).values()),
        }

    @property
    def digest(self) -> str:
        """The digest of the identity."""
        return canonical_digest(self.identity)
