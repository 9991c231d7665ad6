"""The rule that drops methods, or calls them level with the best, after every seed; on many simulated races at once.

After each seed every pair of methods that still run has a t statistic of its own paired differences. Which method is
the best is not known; the rule rests on this (a partition by the best method, as in Hsu's comparisons with the best):

- A method is a candidate for the best as long as no other is shown to be better. If the best is a candidate, what holds
  against every candidate holds against the best, so only its k - 1 pairs need to be right.
- Dropped: shown to be more than the margin worse than every candidate.
- Level: shown to be less than the margin worse than every other candidate.

The level is divided between the four kinds of error (`SHARES`). The pairs of a candidate share those of "best" and
"worse" equally (Bonferroni). That of "level" is Holm's: what was spent on a pair that is shown to be level is spent
again on the others, since that was no error; and what is not spent yet on a method that is dropped goes to them too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.stats.sequential.boundaries import Array, cut, move, spent, start
from analysis.stats.sequential.collapses import unreliable

Bools = NDArray[np.bool_]
OPEN, LEVEL, DROPPED = 0, 1, 2
SHARES = {"best": 0.1, "worse": 0.25, "level": 0.45, "collapse": 0.2}
"""Shares of the level: that the best is no candidate, that the lower bound of a pair with the best is wrong, that a
method is wrongly called level with the best, and that a reliable method is dropped for its collapses."""
_ROUNDING = 1e-20
"""A sum of squares below this share of the squared difference is rounding error: the difference is always the same."""


class Race:
    """The state of (draws,) races of the same number of methods; arrays of pairs are (draws, first, second).

    Attributes:
        seeds: number of seeds looked at.
        running: (draws, methods) whether the method runs the next seed.
        state: (draws, methods) OPEN, LEVEL or DROPPED.
        candidate: (draws, methods) whether the method may be the best.
        collapses, runs: (draws, methods) number of collapsed runs, and of all.
        difference: mean of the first method minus that of the second, over the seeds that both ran.
        used: number of these seeds.
        squares: sum of squares of the paired differences about their mean.
        below, above: bounds of the difference; `above` not of a pair that is level.
        level: whether the second method is shown to be less than the margin worse than the first.
        least: the variance of a difference that the rounding of two scores to steps of `resolution` makes, at least.
    """

    def __init__(
        self, draws: int, methods: int, *, most: int, margin: float, alpha: float, resolution: float = 0.0
    ) -> None:
        self.most, self.margin, self.alpha = most, margin, alpha
        self.least = resolution**2 / 6
        self.seeds = 0
        shape, pairs = (draws, methods), (draws, methods, methods)
        self.running, self.candidate = np.ones(shape, dtype=bool), np.ones(shape, dtype=bool)
        self.state = np.zeros(shape, dtype=int)
        self.collapses, self.runs = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
        self.difference, self.squares = np.zeros(pairs), np.zeros(pairs)
        self.used = np.zeros(pairs, dtype=int)
        self.below, self.above = np.full(pairs, -np.inf), np.full(pairs, np.inf)
        self.level = np.zeros(pairs, dtype=bool)
        self._same = np.eye(methods, dtype=bool)
        self._equal = {"best": start(), "worse": start()}
        self._boundaries = start()[None]
        self._boundary = np.zeros(shape, dtype=int)
        self._spent, self._gone = np.zeros(shape), np.zeros(shape)

    def look(self, scores: Array, collapsed: Bools | None = None) -> None:
        """Add a seed.

        Args:
            scores: (draws, methods); those of methods that do not run are ignored.
            collapsed: (draws, methods), whether the run learned nothing.
        """
        self.seeds += 1
        both = self.running[:, :, None] & self.running[:, None, :] & ~self._same
        self.runs += self.running
        self._add(np.where(self.running, scores, 0.0), both)
        if collapsed is not None:
            self._start_anew(collapsed & self.running)
        if self.seeds > 1:
            self._compare(both)
        self._decide()

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounds of how much worse each method is than the best, each (draws, methods).

        The upper bound of a method that is level is the margin.
        """
        by = self.candidate[:, :, None] & ~self._same
        low = np.where(self.candidate, 0.0, np.where(by, self.below, np.inf).min(axis=1))
        high = np.where(by, np.where(self.level, self.margin, self.above), 0.0).max(axis=1)
        return np.maximum(low, 0.0), np.maximum(high, 0.0)

    def _add(self, scores: Array, both: Bools) -> None:
        """Update means and sums of squares of the differences (Welford 1962)."""
        change = np.where(both, scores[:, :, None] - scores[:, None, :] - self.difference, 0.0)
        self.used += both
        self.difference = self.difference + change / self.seeds
        self.squares += change**2 * (self.seeds - 1) / self.seeds

    def _start_anew(self, collapsed: Bools) -> None:
        """Forget the bounds of methods that collapsed: those of before are narrow, because none had been seen."""
        self.collapses += collapsed
        pair = collapsed[:, :, None] | collapsed[:, None, :]
        self.below[pair], self.above[pair], self.level[pair] = -np.inf, np.inf, False
        self.state[collapsed & (self.state == LEVEL)] = OPEN

    def _compare(self, both: Bools) -> None:
        varies = self.squares > _ROUNDING * (1e-6 + self.difference**2)
        variance = np.maximum(self.squares / (self.seeds - 1), self.least)
        error = np.where(both & (varies | (self.least > 0)), np.sqrt(variance / self.seeds), np.inf)
        others = both.shape[1] - 1
        before, share = spent([self.seeds - 1, self.seeds], self.most)
        critical = {}
        for kind, alive in self._equal.items():
            level = (share - before) * self.alpha * SHARES[kind] / others
            now = move(alive, self.seeds - 1) if self.seeds > 2 else alive
            critical[kind], self._equal[kind] = cut(now, self.seeds, 2 * level)
        with np.errstate(invalid="ignore"):
            low = self.difference - critical["worse"] * error
            high = self.difference + critical["best"] * error
        self.below = np.maximum(self.below, np.where(both, low, -np.inf))
        self._keep(self.candidate & ~(np.where(both, high, np.inf) < 0).any(axis=2))
        self._find_level(both, error, float(share) * self.alpha * SHARES["level"])

    def _keep(self, candidate: Bools) -> None:
        """Keep these candidates, or all of a race that would have none."""
        self.candidate = np.where(candidate.any(axis=1, keepdims=True), candidate, self.candidate)

    def _find_level(self, both: Bools, error: Array, budget: float) -> None:
        """Test which methods are level with which by Holm: again as long as there are more of them.

        Boundaries depend on what was spent at each look; pairs with the same history share one.
        """
        now = move(self._boundaries, self.seeds - 1) if self.seeds > 2 else self._boundaries
        before = self._boundary
        while True:
            tested = both & ~self.level
            count = tested.sum(axis=2)
            target = np.where(count > 0, (budget - self._gone) / np.maximum(count, 1), 0.0)
            target = np.maximum(target, self._spent)
            keys, place = np.unique(
                np.stack([before.ravel(), (target - self._spent).ravel()], axis=1), axis=0, return_inverse=True
            )
            values, self._boundaries = cut(now[keys[:, 0].astype(int)], self.seeds, 2 * keys[:, 1])
            self._boundary = place.reshape(before.shape)
            high = np.where(tested, self.difference + values[self._boundary][:, :, None] * error, np.inf)
            found = tested & (high < self.margin)
            if not found.any():
                break
            self.level |= found
        self.above, self._spent = np.minimum(self.above, high), target

    def _decide(self) -> None:
        out = self.running & unreliable(self.collapses, self.runs, self.alpha * SHARES["collapse"])
        self._keep(self.candidate & ~out)
        others = ~self.candidate[:, :, None] | self._same
        worse = ~self.candidate & (others | (self.below > self.margin)).all(axis=1)
        near = (others | self.level).all(axis=1)
        undecided = self.state == OPEN
        self.state[undecided & near] = LEVEL
        self.state[undecided & worse | out & ~self.candidate] = DROPPED
        dropped = self.running & (self.state == DROPPED)
        self._gone += self._spent * (dropped[:, None, :] & ~self.level & ~self._same).sum(axis=2)
        self.running = self.running & ((self.state == OPEN) | self.candidate & self._needed()) & ~dropped
        self.running &= (self.state == OPEN).any(axis=1, keepdims=True)

    def _needed(self) -> Bools:
        """Return which methods are needed to decide on others: open ones are not yet level with them, or it is not yet
        known which of two candidates is the better, of which one would drop an open method and the other would not.
        """
        pending = (self.state == OPEN)[:, None, :] & ~self._same
        dropping = np.any(self.candidate[:, :, None] & (self.below > self.margin), axis=1, keepdims=True)
        needed: Bools = (pending & (~self.level | dropping)).any(axis=2)
        return needed
