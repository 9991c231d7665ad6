"""The rungs of successive halving: the training items of a trial, the points of a rung, and what a bracket costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

REDUCTION = 4
"""Ratio of items between two rungs, and share of points that rise: the default of Optuna, and of Li et al. 2020."""
MOST = 6
"""Highest number of rungs: the lowest then has a thousandth of the items."""
_KNOWN = 2
"""Points that may rise without being among the best: the recommended and the matched one."""


@dataclass(frozen=True)
class Rungs:
    """The rungs of a study, counted from 0, the lowest.

    Attributes:
        number: 1 if every trial trains on all items.
    """

    number: int = 1

    @property
    def top(self) -> int:
        """The rung with all items."""
        return self.number - 1

    @property
    def halving(self) -> bool:
        """Whether there are rungs with fewer items."""
        return self.number > 1

    def points(self, rung: int) -> int:
        """Return the number of points of a rung in each bracket, without the known ones that are not among the best."""
        return int(REDUCTION ** (self.top - rung))

    def share(self, rung: int) -> float:
        """Return the share of the items that a trial of a rung trains on."""
        return 1 / self.points(rung)

    def items(self, all_items: int, rung: int) -> int:
        """Return the number of training items of a rung."""
        return all_items // self.points(rung)

    @property
    def bracket_cost(self) -> int:
        """The cost of a bracket, in trainings on all items: that of one in each rung."""
        return self.number

    @property
    def known_cost(self) -> float:
        """What known points cost at most in rungs that they have not risen to by their results, in the same unit."""
        return _KNOWN * sum(self.share(rung) for rung in range(1, self.number))

    def brackets(self, trials: float) -> int:
        """Return how many brackets cost at most `trials` trainings on all items."""
        return max(0, int((trials - self.known_cost) // self.bracket_cost))

    def fits(self, costs: Sequence[int], trials: float, budget: float | None, seconds: float) -> bool:
        """Return whether a new bracket may begin.

        The first may whatever the budget, because what a bracket takes is not known before.

        Args:
            costs: those of all brackets including this one, in trainings on all items.
            trials: what all brackets may cost, in the same unit.
            budget: device-seconds that all brackets may take; None for no limit.
            seconds: device-seconds that the others took.
        """
        others = sum(costs[:-1])
        in_budget = budget is None or not others or seconds * sum(costs) / others <= budget
        return sum(costs) + self.known_cost <= trials and in_budget

    @property
    def least(self) -> int:
        """The number of trainings on all items that one bracket costs."""
        return math.ceil(self.bracket_cost + self.known_cost)
