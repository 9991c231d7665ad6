"""What rounds of seeds show of each method so far: whether it leads, is level with the best, is dropped, or is open.

The answer is a function of the table alone: its seeds are looked at one after another in their order, whenever and
however often this is called, so that an interrupted comparison comes to the same answer as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.stats.cells import cells
from analysis.stats.distributions import noncentrality
from analysis.stats.sequential.boundaries import FIRST_LOOK, critical_values, spent
from analysis.stats.sequential.collapses import most_collapses
from analysis.stats.sequential.race import DROPPED, LEVEL, OPEN, SHARES, Race
from whichlora.errors import OptionError

STATES = ("leader", "level", "open", "dropped")
OUTCOMES = ("en", "tl", "mean")
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of a method; differences are in points, positive if the method is worse.

    Attributes:
        state: "leader" (the highest mean of those that may be the best), "level" (less than the margin worse than the
            best), "dropped" (more than the margin worse than the best, or unreliable), or "open".
        unreliable: whether it was dropped because too many of its runs collapsed.
        decided: whether the state is final; of the leader, whether it is shown to be less than the margin worse than
            the best.
        runs: number of seeds that count.
        behind: the mean difference from the leader, over the seeds that both ran; 0 for the leader.
        interval: how much worse it is than the best; simultaneous over methods, and valid at every look. The upper end
            is the margin if the method is level, infinite before the first look and for an unreliable method.
        collapses: number of runs that learned nothing.
        collapse_limit: upper confidence limit of the probability of a collapse, for this method alone.
        continues: whether it runs the next seed.
        shows_worse: how much worse a method with its spread must be to be dropped at the last seed with a power of
            80 %; None once decided, before two seeds, and if fewer than three can be afforded.
        shows_level: the smallest margin within which it can be shown at the last seed to be level with one as good,
            with a power of 80 %; None as before.
    """

    method: str
    state: str
    unreliable: bool
    decided: bool
    runs: int
    behind: float
    interval: tuple[float, float]
    collapses: int
    collapse_limit: float
    continues: bool
    shows_worse: float | None
    shows_level: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The standings after some seeds.

    Attributes:
        standings: leader first, then level, open and dropped methods, each from the least to the most behind.
        seeds: number of seeds that count.
        missing: (method, seed) that the next seed still lacks, if others have it already.
        finished: whether every method is decided.
    """

    standings: tuple[Standing, ...]
    seeds: int
    missing: tuple[tuple[str, object], ...]
    finished: bool

    def __getitem__(self, method: str) -> Standing:
        return next(standing for standing in self.standings if standing.method == method)

    @property
    def next_methods(self) -> tuple[str, ...]:
        """The methods that run the next seed."""
        return tuple(standing.method for standing in self.standings if standing.continues)


def judge(
    scores: pd.DataFrame,
    *,
    margin: float,
    max_seeds: int,
    confidence: float = 0.95,
    collapsed: pd.DataFrame | None = None,
    families: int = 1,
    affordable: int | None = None,
    resolution: float = 0.0,
) -> Verdict:
    """Judge methods by their scores, one row per seed and one column per method, in points.

    Seeds count in ascending order up to the first that lacks a score of a method that still runs, and up to
    `max_seeds`; what methods scored after they left is ignored.

    Args:
        collapsed: which runs learned nothing, with the rows and columns of `scores`; others are taken to have learned.
        families: number of verdicts that are to hold together, such as one for each language (Bonferroni).
        affordable: number of seeds that the budget allows, if fewer than `max_seeds`; what can be shown depends on it.
        resolution: the steps of the scores, in points, such as 100 / 60 for the share of right answers to 60 items. A
            difference that is the same in all seeds is known no better than its rounding; with 0 it is never decided.

    Raises:
        OptionError: an option or the table is invalid.
    """
    _check(scores, margin, max_seeds, confidence, families)
    table = scores.sort_index().sort_index(axis=1)
    flags = np.zeros(table.shape, dtype=bool)
    if collapsed is not None:
        flags = collapsed.reindex(index=table.index, columns=table.columns).eq(True).to_numpy()
    alpha = (1 - confidence) / families
    race = Race(1, table.shape[1], most=max_seeds, margin=margin, alpha=alpha, resolution=resolution)
    missing: list[tuple[str, object]] = []
    values = table.to_numpy(dtype=float)
    for row, seed in enumerate(table.index[:max_seeds]):
        lacking = race.running[0] & ~np.isfinite(values[row])
        if lacking.any() or not race.running.any():
            missing = [(str(name), seed) for name in table.columns[lacking]]
            break
        race.look(values[None, row], flags[None, row])
    last = max_seeds if affordable is None else min(max_seeds, affordable)
    return _verdict(race, [str(name) for name in table.columns], alpha, tuple(missing), last)


def seed_scores(table: pd.DataFrame, *, primary: str, languages: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the scores that `judge` takes, from the tidy table of runs.

    The score of a method and seed is the mean over the blocks of `cells` (languages and ratios; those of one adapter
    count together as one). It is missing if one of its blocks is.

    Args:
        primary: the outcome that counts: "en", "tl", or "mean" of both.
        languages: the languages that count; None for all.

    Raises:
        OptionError: `primary` is none of these.
    """
    if primary not in OUTCOMES:
        raise OptionError("primary", primary, f"must be one of {', '.join(OUTCOMES)}")
    if languages is not None:
        table = table[table["language"].isin([*languages, ""])]
    parts = [_means(table, outcome) for outcome in (("en", "tl") if primary == "mean" else (primary,))]
    return sum(parts[1:], parts[0]) / len(parts)


def _means(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the mean over blocks by seed and method, NaN where a block is missing."""
    units = cells(table, outcome).units
    by = units.groupby(["seed", "method"])["value"].agg(["mean", "size"])
    return by["mean"].where(by["size"] == units["block"].nunique()).unstack("method")


def _check(scores: pd.DataFrame, margin: float, max_seeds: int, confidence: float, families: int) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise OptionError("margin", margin, "must be a number of points above 0")
    if not 0.5 < confidence < 1:
        raise OptionError("confidence", confidence, "must be between 0.5 and 1, such as 0.95")
    if max_seeds < FIRST_LOOK:
        raise OptionError("max_seeds", max_seeds, f"must be at least {FIRST_LOOK}, the first number that is judged")
    if families < 1:
        raise OptionError("families", families, "must be at least 1")
    if scores.shape[1] < 2:
        raise OptionError("methods", ", ".join(map(str, scores.columns)) or "none", "must be at least two")
    for axis, names in (("methods", scores.columns), ("seeds", scores.index)):
        if names.has_duplicates:
            raise OptionError(axis, next(iter(names[names.duplicated()])), "must not occur twice")


def _verdict(
    race: Race, names: Sequence[str], alpha: float, missing: tuple[tuple[str, object], ...], last: int
) -> Verdict:
    state, running = race.state[0], race.running[0]
    low, high = (bound[0] for bound in race.bounds())
    candidates = np.flatnonzero(race.candidate[0])
    # The highest mean of the candidates: on average over their pairs, as far as these have run together.
    leader = max(candidates, key=lambda index: float(race.difference[0, index, candidates].mean()))
    standings = []
    for index, name in enumerate(names):
        dropped, runs = state[index] == DROPPED, int(race.runs[0, index])
        unreliable = bool(dropped and low[index] <= race.margin)
        reach = None if state[index] != OPEN else _reach(race, index, int(leader), alpha, last)
        label = "dropped" if dropped else "level" if state[index] == LEVEL else "open"
        standings.append(
            Standing(
                method=name,
                state="leader" if index == leader else label,
                unreliable=unreliable,
                decided=bool(state[index] != OPEN),
                runs=runs,
                behind=float(race.difference[0, leader, index]),
                interval=(float(low[index]), math.inf if unreliable else float(high[index])),
                collapses=int(race.collapses[0, index]),
                collapse_limit=float(most_collapses(race.collapses[0, index], runs, alpha)) if runs else 1.0,
                continues=bool(running[index]),
                shows_worse=reach and reach[0],
                shows_level=reach and reach[1],
            )
        )
    standings.sort(key=lambda standing: (STATES.index(standing.state), standing.behind, standing.method))
    finished = race.seeds > 0 and not (race.state[0] == OPEN).any()
    return Verdict(standings=tuple(standings), seeds=race.seeds, missing=missing, finished=finished)


def _reach(race: Race, index: int, leader: int, alpha: float, last: int) -> tuple[float, float] | None:
    """Return what can be shown of an open method at the last seed (see `Standing`), of the leader against the others.

    Earlier looks add power, and so does the level that other methods leave, so both are upper limits.
    """
    rivals = [leader] if index != leader else [j for j in np.flatnonzero(race.running[0]) if j != leader]
    squares = [race.squares[0, j, index] / (race.used[0, j, index] - 1) for j in rivals if race.used[0, j, index] > 1]
    if not squares or last < FIRST_LOOK:
        return None
    error = math.sqrt(max(*squares, race.least) / last)
    steps = np.diff(spent(np.arange(1, last + 1), race.most)) * 2 * alpha / (race.state.shape[1] - 1)
    worse, level = (
        noncentrality(last - 1, float(critical_values(steps * SHARES[kind])[-1]), POWER) * error
        for kind in ("worse", "level")
    )
    return race.margin + worse, level
