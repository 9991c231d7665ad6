"""Simulates the intervals for other test items: `python -m benchmarks.simulated.coverage [--draws 500]`.

Each draw has new adapters and new items, whose answers are right or wrong by a latent normal model with a known true
difference. Counted is how often an interval covers it: over pairs for intervals of one pair, and for simultaneous ones
how often all are covered.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.robustness.item_scores import ItemScores, Paired, pair_items
from analysis.robustness.two_way import components, standard_error, two_way_bootstrap
from analysis.stats.moderated import least_p, moderated
from benchmarks.simulated.false_alarms import markdown

_METHODS = 4
_BOOTSTRAP_DRAWS = 500


@dataclass(frozen=True, kw_only=True)
class Design:
    """A design of equal methods, except that the first has a lead.

    Attributes:
        adapter_sd: SD between adapters (method, block and seed), on the latent scale; the items' SD is 1.
        item_sd: SD of what a method has of its own on an item.
        lead: of the first method, on the latent scale.
    """

    blocks: int = 12
    seeds: int = 3
    items: int = 500
    adapter_sd: float = 0.05
    item_sd: float = 0.3
    lead: float = 0.1


DESIGNS = {
    "12 blocks, 3 seeds": Design(),
    "the same, adapters vary more": Design(adapter_sd=0.2),
    "the same, methods differ on items more": Design(item_sd=1.0),
    "the same, items add nothing": Design(item_sd=0.0, adapter_sd=0.2),
    "1 block, 3 seeds": Design(blocks=1),
    "1 block, 3 seeds, 2,000 items": Design(blocks=1, items=2000),
    "1 block, 5 seeds, methods differ on items more": Design(blocks=1, seeds=5, item_sd=1.0),
    "4 blocks, 2 seeds, 100 items": Design(blocks=4, seeds=2, items=100),
}


def answers(design: Design, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return right (100) and wrong (0) answers of shape (methods, blocks, seeds, items)."""
    shape = (_METHODS, design.blocks, design.seeds, design.items)
    latent = rng.standard_normal(shape, dtype=np.float32) + rng.standard_normal(design.items, dtype=np.float32)
    latent += design.item_sd * rng.standard_normal((_METHODS, 1, 1, design.items), dtype=np.float32)
    latent += design.adapter_sd * rng.standard_normal((*shape[:3], 1), dtype=np.float32)
    latent[0] += design.lead
    return np.where(latent > 0, np.float32(100), np.float32(0))


def true_difference(design: Design, first: int) -> float:
    """Return the difference of the first method of a pair and a later one, in points."""
    if first:
        return 0.0
    sd = np.sqrt(2 + design.item_sd**2 + design.adapter_sd**2)
    return 100 * float(stats.norm.cdf(design.lead / sd) - 0.5)


def covered(design: Design, rng: np.random.Generator) -> dict[str, float]:
    """Return which intervals of one draw cover the truth: a share of pairs, or whether all do."""
    scores = answers(design, rng)
    parts = design.blocks * design.seeds
    data = ItemScores(
        methods=tuple("ABCD"),
        results=np.arange(_METHODS * parts).reshape(_METHODS, parts),
        units=np.arange(parts),
        blocks=np.repeat(np.arange(design.blocks), design.seeds),
        scores=scores.reshape(-1, design.items),
    )
    units = scores.mean(axis=3, dtype=float)
    first, second = np.triu_indices(_METHODS, 1)
    errors = moderated(units[first] - units[second])
    null = least_p(np.zeros(units.shape, dtype=bool).tobytes(), units.shape)
    critical = float(null[max(0, int(np.ceil(0.05 * (1 + len(null)))) - 2)])
    hits: dict[str, list[bool]] = {name: [] for name in ("two-way", "components", "plain", "items", "these", "others")}
    for position, (i, j) in enumerate(zip(first, second, strict=True)):
        truth = true_difference(design, i)
        paired = pair_items(data, i, j)
        found = components(paired)
        effect = float(paired.weights @ paired.means)
        df = found.total**2 / (found.between**2 / found.df + found.items**2 / (design.items - 1))
        quantile = stats.t.isf(0.025, df)
        draws = two_way_bootstrap(paired, _BOOTSTRAP_DRAWS)
        hits["two-way"].append(abs(effect - truth) <= quantile * standard_error(found, draws))
        hits["components"].append(abs(effect - truth) <= quantile * np.sqrt(found.total))
        low, high = np.quantile(plain_bootstrap(paired, rng), [0.025, 0.975])
        hits["plain"].append(low <= truth <= high)
        hits["items"].append(abs(effect - truth) <= 1.96 * np.sqrt(found.items + found.both))
        error, df_error = float(errors.error[position]), float(errors.df[position])
        hits["these"].append(abs(effect - truth) <= stats.t.isf(critical / 2, df_error) * error)
        wider = error**2 + found.items
        df_wider = wider**2 / (error**4 / df_error + found.items**2 / (design.items - 1))
        hits["others"].append(abs(effect - truth) <= stats.t.isf(critical / 2, df_wider) * np.sqrt(wider))
    simultaneous = {"these", "others"}
    return {name: float(np.all(told) if name in simultaneous else np.mean(told)) for name, told in hits.items()}


def plain_bootstrap(paired: Paired, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the draws of the pigeonhole bootstrap as it was published, without corrections."""
    sizes = np.bincount(paired.blocks)
    counts = [rng.multinomial(n, np.full(n, 1 / n), size=_BOOTSTRAP_DRAWS) for n in sizes]
    unit_draws = np.concatenate(counts, axis=1) * paired.weights
    by_items = unit_draws.astype(np.float32) @ paired.contributions
    by_items *= _item_draws(by_items.shape[1])
    by_items = by_items.sum(axis=1)
    return np.asarray(unit_draws @ paired.means + by_items)


@lru_cache(maxsize=1)
def _item_draws(items: int) -> NDArray[np.float32]:
    counts = np.random.default_rng(7).multinomial(items, np.full(items, 1 / items), size=_BOOTSTRAP_DRAWS)
    return counts.astype(np.float32)


def simulate(design: Design, draws: int) -> dict[str, float]:
    """Return the coverage of each interval."""
    rng = np.random.default_rng(2026)
    return pd.DataFrame([covered(design, rng) for _ in range(draws)]).mean().to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print the coverage as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    simulated = partial(simulate, draws=parser.parse_args(arguments).draws)
    coverage = {name: simulated(design) for name, design in DESIGNS.items()}
    print(markdown(pd.DataFrame.from_dict(coverage, orient="index")))


if __name__ == "__main__":
    main()
