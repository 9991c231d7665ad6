"""Simulates tuning with known truth: successive halving against trials on all items, at equal cost.

    python -m benchmarks.simulated.halving            # minutes per setting

A point has a learning rate, a rank and an alpha. Its score on all items falls from the best with the square of the
distance to the best rate (in decades) and a little with rank and alpha; with fewer items it is lower, and the best rate
is higher by `shift` decades for each decade of items. With `drop` a point learns nothing until it has had enough
items, the later the further its rate is from the best. Scores have the noise of a training seed and of the validation
items. The known point is a random distance away from the best rate.

Every strategy has the same device time: 20 trainings on all items, where a training on fewer items takes its share and
`fixed` more, for loading and validation. Then the three best points on all items and the known one are trained with two
fresh seeds, and the best mean is taken. Counted is how often its true score is within a point of the best there is.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from tuning.dimensions import Choice, Range
from tuning.halving.brackets import Brackets, in_rung, n_points
from tuning.halving.promotion import LEARNED, LOSS
from tuning.halving.rungs import Rungs
from tuning.sampler import TrialSampler
from tuning.space import Space

TRIALS, FRESH, BEST, FLOOR, TOP = 20, 2, 3, 1 / 3, 0.85
SPACE = Space(
    dimensions={
        "learning_rate": Range(low=2e-5, high=4e-2),
        "rank": Choice(values=(4, 8, 16, 32)),
        "alpha": Range(low=4.0, high=32.0),
    }
)
"""Three decades of learning rates."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A response of scores to hyperparameters and items.

    Attributes:
        shift: decades that the best rate rises for a decade fewer items.
        width: decades from the best rate at which the score falls by ten points.
        drop: share of the items below which even the best point learns nothing; 0 for a gradual rise.
        noise: SD of a score with one training seed.
        items: validation items, whose noise is added.
        others: weight of rank and alpha; 1 is up to a point each.
        fixed: device time of a training besides that of its items, as a share of one on all items.
    """

    shift: float = 0.0
    width: float = 0.5
    drop: float = 0.0
    noise: float = 0.01
    items: int = 500
    others: float = 1.0
    fixed: float = 0.02


SETTINGS = {
    "smooth": Setting(),
    "the best rate shifts by .25": Setting(shift=0.25),
    "the best rate shifts by .5": Setting(shift=0.5),
    "narrow optimum": Setting(width=0.2),
    "rank and alpha matter too": Setting(width=0.3, others=6),
    "noisy": Setting(noise=0.03, items=120),
    "learnt in a drop at 1/5 of the items": Setting(drop=0.2),
    "learnt in a drop at 1/2 of the items, noisy": Setting(drop=0.5, noise=0.03, items=120),
    "fixed costs of a tenth": Setting(fixed=0.1),
}


class Truth:
    """The true and the observed scores of one draw."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        """Draw the best rate and the known point."""
        self.setting, self.rng = setting, rng
        self.best_rate = rng.uniform(-4.0, -2.2)
        rate = float(np.clip(self.best_rate + rng.normal(0, 0.4), -4.6, -1.5))
        self.best = self.score({"learning_rate": 10**self.best_rate, "rank": 16, "alpha": 16.0})
        self.known = {"learning_rate": 10**rate, "rank": 8, "alpha": 16.0}

    def score(self, point: dict[str, Any], share: float = 1.0) -> float:
        """Return the expected score of a point with a share of the items."""
        s = self.setting
        decades = math.log10(share)
        away = (math.log10(point["learning_rate"]) - self.best_rate + s.shift * decades) / s.width
        others = 0.004 * abs(math.log2(point["rank"] / 16)) + 0.003 * abs(math.log2(point["alpha"] / 16))
        lost = 0.1 * away**2 + s.others * others
        full = max(FLOOR, TOP - lost)
        if s.drop:
            needed = math.log10(s.drop) + 0.5 * lost / (TOP - FLOOR)
            learned = 1 / (1 + math.exp(-(decades - needed) / 0.08))
        else:
            learned = 1 / (1 + 0.5 * (share**-0.35 - 1))
        return FLOOR + (full - FLOOR) * learned

    def observed(self, point: dict[str, Any], share: float = 1.0) -> float:
        """Return a score with noise."""
        true = self.score(point, share)
        return float(np.clip(true + self.rng.normal(0, self.sd(true)), 0, 1))

    def sd(self, score: float) -> float:
        """Return the SD of an observed score."""
        return math.hypot(self.setting.noise, math.sqrt(score * (1 - score) / self.setting.items))

    def loss(self, point: dict[str, Any], share: float) -> float:
        """Return a training loss, which falls with the true score."""
        return 1.1 - self.score(point, share) + float(self.rng.normal(0, 0.03))


def champion(truth: Truth, trials: list[FrozenTrial]) -> float:
    """Return the true score of the point that is chosen with fresh seeds, from trials on all items."""
    points = [trial.params for trial in sorted(trials, key=lambda trial: -trial.values[0])]
    finalists = [*points[:BEST], truth.known]
    means = [np.mean([truth.observed(point) for _ in range(FRESH)]) for point in finalists]
    return truth.score(finalists[int(np.argmax(means))])


def plain(truth: Truth, name: str, sampler: optuna.samplers.BaseSampler) -> tuple[float, int]:
    """Tune with trials on all items; return the champion's true score and the number of points."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(truth.known)
    for _ in range(int(TRIALS / (1 + truth.setting.fixed))):
        trial = study.ask()
        study.tell(trial, truth.observed(SPACE.suggest(trial)))
    return champion(truth, study.trials), len(study.trials)


def halving(truth: Truth, name: str, number: int) -> tuple[float, int]:
    """Tune with successive halving; return the champion's true score and the number of points."""
    rungs = Rungs(number)
    brackets = Brackets(rungs, SPACE, {"matched": truth.known}, name, 9000)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    chance = FLOOR + 2 * truth.sd(FLOOR)
    known = sum(rungs.share(rung) + truth.setting.fixed for rung in range(1, number))

    def may_begin(costs: Sequence[int]) -> bool:
        """Return whether all brackets fit into the device time, with their fixed costs."""
        trainings = sum(rungs.points(rung) for cost in costs for rung in range(number - cost, number))
        return len(costs) == 1 or sum(costs) + trainings * truth.setting.fixed + known <= TRIALS

    while entries := brackets.missing(study.trials, may_begin=may_begin):
        for entry in entries:
            study.enqueue_trial(entry.point, user_attrs=entry.attributes)
        for entry in entries:
            trial = study.ask()
            point, share = SPACE.suggest(trial), rungs.share(entry.place.rung)
            value = truth.observed(point, share)
            trial.set_user_attr(LEARNED, value > chance)
            trial.set_user_attr(LOSS, truth.loss(point, share))
            study.tell(trial, value)
    return champion(truth, in_rung(study.trials, rungs.top)), n_points(study.trials)


Strategy = Callable[[Truth, str], tuple[float, int]]
STRATEGIES: dict[str, Strategy] = {
    "random": lambda truth, name: plain(truth, name, optuna.samplers.RandomSampler(seed=truth.rng.integers(2**31))),
    "TPE": lambda truth, name: plain(truth, name, TrialSampler(name)),
    "rungs=2": lambda truth, name: halving(truth, name, 2),
    "rungs=3": lambda truth, name: halving(truth, name, 3),
    "rungs=4": lambda truth, name: halving(truth, name, 4),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table with a row per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=STRATEGIES)
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"| setting | {' | '.join(given.strategies)} |\n{'|---' * (len(given.strategies) + 1)}|")
    for title in given.settings:
        row = [title]
        for name in given.strategies:
            lost, points = [], 0
            for draw in range(given.draws):
                truth = Truth(SETTINGS[title], np.random.default_rng([draw, list(SETTINGS).index(title)]))
                found, points = STRATEGIES[name](truth, f"{title}/{draw}")
                lost.append(100 * (truth.best - found))
            within = np.mean([value <= 1 for value in lost])
            row.append(f"{100 * within:.0f} % ({np.mean(lost):.1f}; {points})")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
