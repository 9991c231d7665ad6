"""Simulates rounds of seeds with scores that move in steps, such as the share of right answers to 60 items.

Run it by `python -m benchmarks.simulated.steps`. Each design is judged twice on the same scores: by the rule that
knows nothing of the steps (`resolution` 0), and by the one that does. In the first designs methods are at the edge of
the margin, and hardest where a difference hardly ever varies: then the seeds seen so far may be all the same, although
their mean is not the true one. The others are settings of `benchmarks.simulated.rounds`, with what they cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from benchmarks.simulated.rounds import MARGIN, SETTINGS, Array, Setting, rates, show

_NEAR = 1e-4
"""How far beyond the margin, or short of it, a method is that is at its edge, in points."""


@dataclass(frozen=True, kw_only=True)
class Stepped(Setting):
    """A setting in which normal scores are rounded to multiples of a step; what is true are means of rounded scores.

    Attributes:
        step: in points, 100 / n for the share of right answers to n items.
        languages: number of languages with errors of their own, whose mean is the score.
    """

    step: float
    languages: int = 1

    @property
    def worse(self) -> Array:
        """How much worse each method is than the best, on average over the rounded scores."""
        sd = np.sqrt(np.square(self.sd) + self.seed_sd**2)
        means = np.array([rounded_mean(mean, each, self.step) for mean, each in zip(self.means, sd, strict=True)])
        return np.asarray(means.max() - means)

    def draw(self, rng: np.random.Generator, draws: int, seeds: int) -> Array:
        """Return rounded scores of shape (draws, methods, seeds)."""
        drawn = [np.round(super(Stepped, self).draw(rng, draws, seeds) / self.step) for _ in range(self.languages)]
        return np.asarray(self.step * np.mean(drawn, axis=0))


def rounded_mean(mean: float, sd: float, step: float) -> float:
    """Return the mean of normal values that are rounded to multiples of a step."""
    centre, reach = round(mean / step), int(10 * sd / step) + 2
    multiples = np.arange(centre - reach, centre + reach + 1)
    edges = special.ndtr((np.append(multiples - 0.5, multiples[-1] + 0.5) * step - mean) / sd)
    return float(step * (multiples * np.diff(edges)).sum())


def sometimes(share: float, step: float, sd: float) -> float:
    """Return the mean of normal values of which this share is rounded to one step, and the others to 0."""
    return float(step / 2 + sd * special.ndtri(share))


def edges() -> dict[str, Stepped]:
    """Return designs of methods at the edge of the margin, by name.

    In some the answer to an item is right at times: in a share of `MARGIN / step` of the seeds it makes the margin.
    """
    found = {}
    for name, worse in (("within", MARGIN - _NEAR), ("beyond", MARGIN + _NEAR)):
        label = f"five just {name}"
        for items in (300, 100, 50):
            found[f"{label}, {items} items"] = Stepped(means=(0.0,) + (-worse,) * 5, step=100 / items, edge=True)
        means = (0.5,) + (0.5 - worse,) * 5  # between two steps: one or the other, in half of the seeds each
        found[f"{label}, 100 items, SD .1"] = Stepped(means=means, sd=(0.1,) * 6, step=1.0, edge=True)
        for items, languages in ((60, 1), (20, 1), (20, 4)):
            step = 100 / items
            right = sometimes(worse / step, step, 0.1)
            place = f"{items} items" + f" in {languages} languages" * (languages > 1)
            for who, means in (("the best", (right,) + (0.0,) * 5), ("the five", (0.0,) + (-right,) * 5)):
                found[f"{label}, {place}, one item of {who}"] = Stepped(
                    means=means, sd=(0.1,) * 6, step=step, languages=languages, edge=True
                )
    return found


def settings() -> dict[str, Stepped]:
    """Return settings of `benchmarks.simulated.rounds` with steps, by name."""
    found = {}
    for name in ("one clear loser", "two level, four losers", "all level", "all different"):
        means = SETTINGS[name].means
        for items in (300, 100, 50):
            found[f"{name}, {items} items"] = Stepped(means=means, step=100 / items)
        found[f"{name}, 300 items, SD .01"] = Stepped(means=means, sd=(0.01,) * 6, step=100 / 300)
    return found


def both(setting: Stepped, draws: int, compared: int) -> dict[str, float]:
    """Return the rates of a setting: of the rule that knows the steps and, marked with 0, of the one that does not."""
    unaware = rates(replace(setting, edge=True), draws, 0)
    aware = rates(replace(setting, resolution=setting.step / setting.languages**0.5), draws, compared)
    names = unaware if setting.edge else ("decided",)  # with nothing at the margin neither of them errs
    return {f"{name}, 0": unaware[name] for name in names} | aware


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print their results as Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--compared", type=int, default=1000, help="draws of the fixed design")
    parser.add_argument("--only", default="", help="one of edges and settings")
    options = parser.parse_args(arguments)
    for kind, designs in (("edges", edges()), ("settings", settings())):
        if options.only in ("", kind):
            show({name: both(setting, options.draws, options.compared) for name, setting in designs.items()})


if __name__ == "__main__":
    main()
