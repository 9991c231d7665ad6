"""Simulates rounds of seeds, after each of which methods are dropped or called level with the best.

Run it by `python -m benchmarks.simulated.rounds`. The rule is that of `analysis/stats/sequential/`. Settings with true
means, SDs and collapses show how often it errs, how often its answer is right for all methods, and what it costs. The
fixed design runs all methods with as many seeds as give the right answer as often, by the report's rule: a method is
dropped if the simultaneous interval of its difference from another excludes the margin. It is level with the highest
mean by the test of equivalence of the pair (TOST, Holm over pairs) or, in the second comparison ("advice"), if it is
within the margin of every other by one-sided tests (Holm over methods).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.stats.best import worse_by_margin
from analysis.stats.equivalence import one_sided
from analysis.stats.moderated import least_p, moderated
from analysis.stats.multiplicity import holm
from analysis.stats.sequential.boundaries import critical_values, spent
from analysis.stats.sequential.race import DROPPED, LEVEL, Race
from benchmarks.simulated.false_alarms import markdown

MARGIN, ALPHA, CHUNK = 1.0, 0.05, 500
COLLAPSE, FLOOR = 30.0, -15.0
"""Points that a collapsed run loses, and the score at or below which a run has collapsed."""
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """True means and SDs of methods, in points.

    Attributes:
        collapse: the probability that a run of the last method collapses.
        seed_sd: SD of the effect of a seed, common to all methods.
        heavy: whether errors have heavy tails (t with 3 degrees of freedom, scaled to the SD) instead of normal ones.
        resolution: what the rule is told of the steps of the scores, in points; see `benchmarks.simulated.steps`.
        edge: whether a method is at the margin, so that no number of seeds decides, and there is no fixed design.
    """

    means: tuple[float, ...]
    sd: tuple[float, ...] = (0.5,) * 6
    most: int = 20
    collapse: float = 0.0
    seed_sd: float = 0.0
    heavy: bool = False
    resolution: float = 0.0
    edge: bool = False

    @property
    def worse(self) -> Array:
        """How much worse each method is than the best, with its collapses."""
        means = np.array(self.means)
        means[-1] -= self.collapse * COLLAPSE
        return np.asarray(means.max() - means)

    def draw(self, rng: np.random.Generator, draws: int, seeds: int) -> Array:
        """Return scores of shape (draws, methods, seeds)."""
        shape = (draws, len(self.means), seeds)
        errors = rng.standard_t(3, shape) / np.sqrt(3) if self.heavy else rng.standard_normal(shape)
        scores = np.array(self.means)[:, None] + np.array(self.sd)[:, None] * errors
        scores += self.seed_sd * rng.standard_normal((draws, 1, seeds))
        scores[:, -1] -= COLLAPSE * (rng.random((draws, seeds)) < self.collapse)
        return np.asarray(scores)


LOSERS, DIFFERENT = (0.0, 0.0, -3.0, -4.0, -5.0, -6.0), (0.0, -2.0, -4.0, -6.0, -8.0, -10.0)
ONE, UNEQUAL = (1.0,) * 6, (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
BEYOND = -1.0001
SETTINGS = {
    "one clear loser": Setting(means=(0, 0, 0, 0, 0, -4)),
    "two level, four losers": Setting(means=LOSERS),
    "all level": Setting(means=(0,) * 6),
    "all different": Setting(means=DIFFERENT),
    "a collapsing method (.4)": Setting(means=(0, 0, -4, -4, -4, 0), collapse=0.4),
    "strong seed effects (SD 5)": Setting(means=LOSERS, seed_sd=5),
    "one clear loser, SD 1": Setting(means=(0, 0, 0, 0, 0, -4), sd=ONE, most=60),
    "two level, four losers, SD 1": Setting(means=LOSERS, sd=ONE, most=60),
    "all level, SD 1": Setting(means=(0,) * 6, sd=ONE, most=60),
    "all different, SD 1": Setting(means=DIFFERENT, sd=ONE, most=60),
    "a collapsing method (.4), SD 1": Setting(means=(0, 0, -4, -4, -4, 0), sd=ONE, most=60, collapse=0.4),
    "strong seed effects (SD 5), SD 1": Setting(means=LOSERS, sd=ONE, most=60, seed_sd=5),
    "SD .5 to 3": Setting(means=(0, -0.2, -3, -4, -5, -6), sd=UNEQUAL, most=40),
    "all different by 6, SD 3": Setting(means=tuple(3 * mean for mean in DIFFERENT), sd=(3.0,) * 6),
}
EDGES = {
    "five just within the margin": Setting(means=(0,) + (-1.0,) * 5, edge=True),
    "the same, SD .3 and the best 1": Setting(means=(0,) + (-1.0,) * 5, sd=(1.0,) + (0.3,) * 5, edge=True),
    "three best, three just within": Setting(means=(0,) * 3 + (-1.0,) * 3, edge=True),
    "one just within, four losers": Setting(means=(0, -1, -5, -5, -5, -5), edge=True),
    "five just beyond the margin": Setting(means=(0,) + (BEYOND,) * 5, edge=True),
    "one just beyond, four losers": Setting(means=(0, BEYOND, -5, -5, -5, -5), edge=True),
    "one just beyond, four near losers": Setting(means=(0, BEYOND, -2.5, -2.5, -2.5, -2.5), edge=True),
    "SD .5 to 3, five just beyond": Setting(means=(0,) + (BEYOND,) * 5, sd=UNEQUAL, edge=True),
    "two methods, one just within": Setting(means=(0, -1), sd=(0.5,) * 2, edge=True),
    "two methods, one just beyond": Setting(means=(0, BEYOND), sd=(0.5,) * 2, edge=True),
    "five just beyond, 8 seeds at most": Setting(means=(0,) + (BEYOND,) * 5, most=8, edge=True),
    "five just within, 8 seeds at most": Setting(means=(0,) + (-1.0,) * 5, most=8, edge=True),
    "five just beyond, heavy tails": Setting(means=(0,) + (BEYOND,) * 5, heavy=True, edge=True),
    "five just within, heavy tails": Setting(means=(0,) + (-1.0,) * 5, heavy=True, edge=True),
}
COLLAPSES = {
    f"{p:g}": Setting(means=(0, -3, -3, -3, -3, 0.0), collapse=p) for p in (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
}


def races(setting: Setting, draws: int) -> list[Race]:
    """Return the finished races of all draws, in chunks."""
    rng = np.random.default_rng(2026)
    found = []
    for start in range(0, draws, CHUNK):
        scores = setting.draw(rng, min(CHUNK, draws - start), setting.most)
        race = Race(*scores.shape[:2], most=setting.most, margin=MARGIN, alpha=ALPHA, resolution=setting.resolution)
        for seed in range(setting.most):
            if race.running.any():
                race.look(scores[:, :, seed], (scores[:, :, seed] <= FLOOR) & (setting.collapse > 0))
        found.append(race)
    return found


def rates(setting: Setting, draws: int, compared: int) -> dict[str, float]:
    """Return error rates, coverage, power and cost of a setting."""
    found = races(setting, draws)
    state = np.concatenate([race.state for race in found])
    low, high = (np.concatenate([race.bounds()[side] for race in found]) for side in (0, 1))
    runs = float(np.concatenate([race.runs for race in found]).sum(axis=1).mean())
    worse = setting.worse
    near = worse <= MARGIN + 1e-9
    right = np.where(near, state == LEVEL, state == DROPPED)
    result = {
        "false drop": float(((state == DROPPED) & near).any(axis=1).mean()),
        "false level": float(((state == LEVEL) & ~near).any(axis=1).mean()),
        "coverage": float(((low <= worse + 1e-9) & (worse - 1e-9 <= high)).all(axis=1).mean()),
        "decided": float((state > 0).mean()),
    }
    if setting.edge:
        return result
    answer = float(right.all(axis=1).mean())
    result |= {"all right": answer, "runs": runs}
    for name, rule in (("", by_pairs), (", advice", by_advice)):
        n = seeds_needed(setting, min(answer, 0.99), rule, compared)
        result |= {f"fixed{name}": len(worse) * n, f"ratio{name}": len(worse) * n / runs}
    return result


Rule = Callable[[Array, NDArray[np.int64], Array, Array, Array], NDArray[np.bool_]]


def by_pairs(means: Array, pairs: NDArray[np.int64], effect: Array, error: Array, df: Array) -> NDArray[np.bool_]:
    """Return which methods are equivalent to that with the highest mean: TOST, Holm over all pairs."""
    _, p = one_sided(effect, error, df, MARGIN)
    same = np.zeros((len(means), means.shape[1], means.shape[1]), dtype=bool)
    same[:, range(means.shape[1]), range(means.shape[1])] = True
    same[:, pairs[:, 0], pairs[:, 1]] = same[:, pairs[:, 1], pairs[:, 0]] = np.array([holm(row) for row in p]) < ALPHA
    return np.asarray(same[np.arange(len(means)), means.argmax(axis=1)])


def by_advice(means: Array, pairs: NDArray[np.int64], effect: Array, error: Array, df: Array) -> NDArray[np.bool_]:
    """Return which methods are less than the margin worse than every other: one-sided tests, Holm over methods."""
    p = worse_by_margin(pairs, effect, error, df, MARGIN, means.shape[1])
    return np.array([holm(row) for row in p]) < ALPHA


def seeds_needed(setting: Setting, wanted: float, rule: Rule, draws: int, most: int = 96) -> float:
    """Return the least number of seeds at which the fixed design is right on all methods as often as wanted.

    It is infinite if `most` are too few: no number is enough for pairs whose difference never varies.
    """
    scores = setting.draw(np.random.default_rng(2027), draws, most)
    if fixed_power(setting, scores, rule) < wanted:
        return math.inf
    low, high = 2, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fixed_power(setting, scores[:, :, :middle], rule) >= wanted else (middle + 1, high)
    return low


def fixed_power(setting: Setting, scores: Array, rule: Rule) -> float:
    """Return how often the fixed design is right on all methods, from scores of shape (draws, methods, seeds)."""
    _, methods, seeds = scores.shape
    pairs = np.stack(np.triu_indices(methods, 1), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # pairs whose difference does not vary are not tested
        effect, error, df, _ = moderated((scores[:, pairs[:, 0]] - scores[:, pairs[:, 1]])[:, :, None, :])
    null = least_p(np.zeros((methods, 1, seeds), dtype=bool).tobytes(), (methods, 1, seeds))
    half = stats.t.isf(null[max(0, int(np.ceil(ALPHA * (1 + len(null)))) - 2)] / 2, df) * error
    dropped = np.zeros(scores.shape[:2], dtype=bool)
    for index, (i, j) in enumerate(pairs):
        dropped[:, i] |= -effect[:, index] - half[:, index] > MARGIN
        dropped[:, j] |= effect[:, index] - half[:, index] > MARGIN
    level = rule(scores.mean(axis=2), pairs, effect, error, df)
    return float(np.where(setting.worse <= MARGIN + 1e-9, level, dropped).all(axis=1).mean())


def collapse_rates(setting: Setting, draws: int) -> dict[str, float]:
    """Return what happens to a method that is as good as the best except in runs that collapse, and to the best."""
    found = races(setting, draws)
    state, runs = (np.concatenate([getattr(race, name) for race in found]) for name in ("state", "runs"))
    return {
        "dropped": float((state[:, -1] == DROPPED).mean()),
        "level": float((state[:, -1] == LEVEL).mean()),
        "the best dropped": float((state[:, 0] == DROPPED).mean()),
        "a loser level": float((state[:, 1:-1] == LEVEL).any(axis=1).mean()),
        "its runs": float(runs[:, -1].mean()),
        "all runs": float(runs.sum(axis=1).mean()),
    }


def widths() -> dict[str, dict[str, float]]:
    """Return critical |t| at a two-sided level of .01 by number of seeds, of this rule and of others.

    The confidence sequence is that of the t test with a normal mixture over the standardised mean (Lai 1976; Wang and
    Ramdas 2025), at each number of seeds with the mixture that suits it best, which none does for all of them.
    """
    seeds, level = np.array([3, 4, 5, 6, 8, 10, 15, 20]), 0.01
    spending = critical_values(level * np.diff(spent(np.arange(1, 21), 20)))[seeds - 2]
    precision = np.geomspace(1e-4, 1e4, 2000)[:, None]
    share = precision / (seeds + precision)
    ratio = (1 / (level * np.sqrt(share))) ** (2 / seeds)
    with np.errstate(invalid="ignore", divide="ignore"):
        square = np.where(ratio * share < 1, (ratio - 1) / (1 - ratio * share), np.inf).min(axis=0) * (seeds - 1)
    found = {
        "one look": stats.t.isf(level / 2, seeds - 1),
        "20 looks": spending,
        "confidence sequence": np.sqrt(square),
    }
    return {name: dict(zip(map(str, seeds), values, strict=True)) for name, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print their results as Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--compared", type=int, default=1000, help="draws of the fixed design")
    parser.add_argument("--only", default="", help="one of widths, settings, edges and collapses")
    options = parser.parse_args(arguments)
    if options.only in ("", "widths"):
        show(widths())
    if options.only in ("", "edges"):
        show({name: rates(setting, options.draws, 0) for name, setting in EDGES.items()})
    if options.only in ("", "collapses"):
        show({name: collapse_rates(setting, options.draws) for name, setting in COLLAPSES.items()})
    if options.only in ("", "settings"):
        found = {}
        for name, setting in SETTINGS.items():
            found[name] = rates(setting, options.draws, options.compared)
            show({name: found[name]})
        ratios = pd.DataFrame.from_dict(found, orient="index").filter(like="ratio").mean()
        show(found | {"mean": dict(ratios)})


def show(found: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table."""
    print(f"\n{markdown(pd.DataFrame.from_dict(found, orient='index'))}", flush=True)


if __name__ == "__main__":
    main()
