"""Chooses the methods that the advice may name, from the comparison with the best of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.evidence import COMPARED_FLOORS
from analysis.measures.floored_blocks import AT_FLOOR, KEPT
from analysis.measures.shallow_baselines import REACHED
from analysis.records import Record, find
from analysis.report.wording import ALPHA
from analysis.stats.best import contenders, within_margin
from analysis.stats.differences import PRIMARY, mean_records, pair_tests

Records = Sequence[Record]
PARAMETERS = "adapter/trainable_parameters"


class Choice(NamedTuple):
    """The methods among which the advice chooses; each in the order of their means.

    Attributes:
        may_be_best: not significantly worse than any other.
        near: shown to be at most the margin worse than every other, or significantly better than all.
        low: half or more of their results are at or below the floor.
    """

    may_be_best: list[str]
    near: list[str]
    low: list[str]

    @property
    def recommended(self) -> list[str]:
        return [name for name in self.near if name not in self.low]

    @property
    def candidates(self) -> list[str]:
        """The recommended methods, or those that may be the best if there are none."""
        return self.recommended or [name for name in self.may_be_best if name not in self.low]


def choose(records: Records, primary: str) -> Choice | None:
    """Return the methods among which to choose; None if the methods cannot be compared."""
    of_outcome = find(records, outcome=primary)
    if not any(r.p_adjusted is not None for r in pair_tests(of_outcome)):
        return None
    order = [r.groups[0] for r in sorted(mean_records(of_outcome), key=lambda r: (-(r.effect or 0.0), r.groups))]
    may_be_best, near = set(contenders(of_outcome, PRIMARY)), set(within_margin(of_outcome, PRIMARY, ALPHA))
    near |= may_be_best if len(may_be_best) == 1 else set()
    reached = find(records, analysis=COMPARED_FLOORS, test=REACHED)
    low = {r.groups[0] for r in reached if r.outcome == primary and r.groups and (r.effect or 0.0) >= 50}
    return Choice(*([name for name in order if name in group] for group in (may_be_best, near, low)))


def all_at_floor(records: Records, primary: str) -> bool:
    """Return whether no block of the primary outcome is above the floor."""
    kept = find(records, outcome=primary, analysis="floors", test=KEPT)
    return bool(find(records, outcome=primary, analysis="floors", test=AT_FLOOR)) and any(r.n == 0 for r in kept)


def cost_of(records: Records, name: str, metric: str) -> float | None:
    found = find(records, outcome="tl", analysis="pareto", test=metric, groups=(name,))
    return found[0].effect if found else None


def cheapest(records: Records, names: Sequence[str], metric: str) -> list[str]:
    """Return the cheapest of the methods, several if they cost the same; empty if a cost is unknown."""
    costs = {name: cost_of(records, name, metric) for name in names}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    if len(known) < len(costs):
        return []
    return [name for name in names if known[name] <= min(known.values()) * 1.001]
