"""Simulates how often each test of a claim judges noise to be what the claim says.

Run it by `python -m benchmarks.simulated.claim_noise`. `claim_counts` has more on counts of configurations.

In each design the truth is just outside the claim: methods, ratios, hyperparameters and costs make no difference, or
the claimed equality is missed by the margin. Draws go the whole path, from a table of runs to the verdict.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.claims.claims import Claim, judge
from analysis.claims.verdicts import CONTRADICTED, SUPPORTED
from benchmarks.simulated.designs import Design, scores, skeleton
from benchmarks.simulated.false_alarms import markdown

Make = Callable[[np.random.Generator], pd.DataFrame]
_METHODS = Design(leads=(0.0,) * 6)
_SMALL = Design(ratios=(0.01, 0.5), shared=False, leads=(0.0,) * 6)
_RATE = 3e-4
_COSTS = ("gpu/torch_peak_mb", "cost a", "cost b", "cost c", "cost d")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print the shares of draws in which claims are supported and contradicted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--only", default="", help="part of the name of a case")
    options = parser.parse_args(arguments)
    found = {name: shares(name, options.draws) for name in CASES if options.only in name}
    print(markdown(pd.DataFrame.from_dict(found, orient="index")))


def shares(name: str, draws: int) -> dict[str, float]:
    """Return the shares of the draws of a case in which the claim is supported and contradicted."""
    test, arguments, make = CASES[name]
    claim = Claim(name=name, says="", outcome="tl", test=test, arguments=arguments)
    rng = np.random.default_rng(1)
    verdicts = [judge(claim, make(rng)).verdict for _ in range(draws)]
    return {verdict: verdicts.count(verdict) / draws for verdict in (SUPPORTED, CONTRADICTED)}


def methods(design: Design = _METHODS) -> Make:
    """Return draws of a design of methods that are equal, with costs that are equal too."""
    table = skeleton(design)

    def make(rng: np.random.Generator) -> pd.DataFrame:
        costs = {cost: rng.normal(100, 5, len(table)) for cost in _COSTS}
        return table.assign(f1=scores(design, table, rng, 1)[0], share=rng.normal(size=len(table)), **costs)

    return make


def behind(method: str, points: float) -> Make:
    """Return draws of a small design in which one method is worse than the equal others."""
    equal = methods(_SMALL)

    def make(rng: np.random.Generator) -> pd.DataFrame:
        table = equal(rng)
        return table.assign(f1=table["f1"] - points / 100 * (table["method"] == method))

    return make


def flat_sweep(rng: np.random.Generator, levels: Sequence[object], factor: str) -> pd.DataFrame:
    """Return runs at five learning rates, which make no difference; those of lora are ten times those of the other."""
    rows = [
        {
            **{"method": f"{level} {rate:g}", "variant": "lora", "arm": "matched", "task": "xnli", "model": "m"},
            **{factor: level, "learning_rate": rate * (10 if level == "lora" else 1), "language": language},
            **{"tl_ratio": 0.5, "seed": seed, "outcome": "tl", "f1": 0.6 + rng.normal(0, 0.01)},
        }
        for level, rate, language, seed in itertools.product(
            levels, _RATE * 2.0 ** np.arange(-2, 3), ("hi", "sw", "ur"), range(12)
        )
    ]
    return pd.DataFrame(rows)


def peaked_sweep(rng: np.random.Generator) -> pd.DataFrame:
    """Return runs at ranks 8 and 32, whose best learning rates differ by the factor that the claim just excludes."""
    table = flat_sweep(rng, (8, 32), "rank")
    best = table["rank"].map({8: _RATE / 2**0.5, 32: _RATE * 2**0.5})
    return table.assign(f1=table["f1"] - 0.02 * np.log(table["learning_rate"] / best) ** 2)


def batches(leads: Mapping[int, float]) -> Make:
    """Return draws of runs of dora and lora at batch sizes, with dora's lead in points."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = [
            {
                **{"method": f"{variant} {batch}", "variant": variant, "arm": "matched", "task": "xnli", "model": "m"},
                **{"batch_size": batch, "language": language, "tl_ratio": 0.5, "seed": seed, "outcome": "tl"},
                "f1": 0.6 + (leads[batch] * (variant == "dora") + rng.normal()) / 100,
            }
            for variant, batch, language, seed in itertools.product(
                ("dora", "lora"), leads, ("hi", "sw", "ur"), range(3)
            )
        ]
        return pd.DataFrame(rows)

    return make


CASES: Mapping[str, tuple[str, Mapping[str, object], Make]] = {
    "no_difference: one method worse by the margin": ("no_difference", {}, behind("F", 1.0)),
    "order >: equal methods": ("order", {"order": "A > B"}, methods()),
    "order > of all others: equal methods": ("order", {"order": "* > F"}, methods()),
    "order =: worse by the margin": ("order", {"order": "A = F"}, behind("F", 1.0)),
    "order > of ratios: no effect": ("order", {"order": "0.01 > 0.5", "factor": "tl_ratio"}, methods(_SMALL)),
    "differ: equal methods": ("differ", {}, methods()),
    "configurations: no effect of the ratio, most": (
        "configurations", {"factor": "tl_ratio", "order": "0.01 > 0.5", "hold": "most"}, methods()
    ),
    "configurations: worse by the margin in all": (
        "configurations", {"order": "F >= A", "by": ["language", "tl_ratio"], "hold": "all"}, behind("F", 1.0)
    ),
    "measures: equal costs, most": ("measures", {"order": "* > A", "metrics": list(_COSTS), "hold": "most"}, methods()),
    "measures: equal costs, one": ("measures", {"order": "B > A", "metrics": list(_COSTS), "hold": 1}, methods()),
    "best: equal methods": ("best", {"methods": {"sw": "A"}}, methods()),
    "front, dominated: equal methods and costs": ("front", {"method": "A", "cost": "cost a"}, methods()),
    "front, not dominated: equal methods and costs": (
        "front", {"method": "A", "cost": "cost a", "dominated": False}, methods()
    ),
    "best_value by rank: no effect of the rate": (
        "best_value", {"parameter": "learning_rate", "factor": "rank", "upper": "32", "lower": "8"},
        lambda rng: flat_sweep(rng, (8, 32), "rank"),
    ),
    "best_value of ten times: no effect of the rate": (
        "best_value",
        {"parameter": "learning_rate", "factor": "variant", "upper": "lora", "lower": "full", "ratio": 10.0},
        lambda rng: flat_sweep(rng, ("lora", "full"), "variant"),
    ),
    "best_value by rank: twice the other": (
        "best_value", {"parameter": "learning_rate", "factor": "rank", "upper": "32", "lower": "8"}, peaked_sweep
    ),
    "interaction: no lead": (
        "interaction", {"factor": "batch_size", "order": "dora > lora"}, batches({8: 0.0, 64: 0.0})
    ),
    "interaction: a lead that stays": (
        "interaction", {"factor": "batch_size", "order": "dora > lora"}, batches({8: 2.0, 64: 2.0})
    ),
    "interaction, reversed: a lead that vanishes": (
        "interaction", {"factor": "batch_size", "order": "dora > lora; lora > dora", "hold": 1, "reversed": True},
        batches({8: 2.0, 64: 0.0}),
    ),
    "correlation: unrelated column": ("correlation", {"columns": ["share"]}, methods(_SMALL)),
}  # fmt: skip
"""By name: a test, its arguments, and draws of tables of runs in which what it claims is not true."""


if __name__ == "__main__":
    main()
