"""Designs of runs with a known truth, for the simulation of false alarms and power."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LANGUAGES = ("hi", "sw", "ur")
METHODS = tuple("ABCDEF")
_ADAPTER_SD, _OWN_SD = 1.0, 0.7


@dataclass(frozen=True, kw_only=True)
class Design:
    """A design whose methods are equal, or have the given leads in points.

    Attributes:
        own: SD of what is specific to a method's run, in units of the usual SD, by method.
        seed_sd: SD of the effect of a seed in a block, common to all methods.
        lacking: whether the last method lacks the last seed.
        collapsed: whether one run of one method, drawn at random, scores 30 points less.
        settings: SD of each setting's runs, in units of the usual SD.
        interaction: SD of a lead's change from block to block.
        shared: whether one adapter at ratio 0 serves all languages.
        floor: F1 of the best shallow baseline, in points, on 2,000 items; None without one.
        block_sd: SD of the levels of languages.
    """

    ratios: tuple[float, ...] = (0.0, 0.01, 0.1, 0.5)
    seeds: int = 3
    leads: tuple[float, ...] = (0.0,) * len(METHODS)
    own: tuple[float, ...] = (1.0,) * len(METHODS)
    seed_sd: float = 0.0
    lacking: bool = False
    collapsed: bool = False
    settings: tuple[float, ...] = (1.0,)
    interaction: float = 0.0
    shared: bool = True
    floor: float | None = None
    block_sd: float = 5.0


NULLS = {
    "Table 2's design": Design(),
    "ratio 0 alone": Design(ratios=(0.0,)),
    "ratios 0 and 0.5": Design(ratios=(0.0, 0.5)),
    "a missing seed, seed effect of SD 2": Design(seed_sd=2.0, lacking=True),
    "SD .2 and 3, three methods each": Design(own=(0.2,) * 3 + (3.0,) * 3),
    "SD .2 and 3, one method erratic": Design(own=(0.2,) * 5 + (3.0,)),
    "SD .2 and 3, one method steady": Design(own=(0.2,) + (3.0,) * 5),
    "one collapsed run": Design(collapsed=True),
    "two settings, the second twice as noisy": Design(ratios=(0.0, 0.5), settings=(1.0, 2.0)),
    "no shared adapters": Design(shared=False),
    "one language and ratio, 5 seeds": Design(ratios=(0.0,), seeds=5),
}
RATIOS = (
    "Table 2's design",
    "a missing seed, seed effect of SD 2",
    "SD .2 and 3, three methods each",
    "no shared adapters",
)
FLOORED = {
    "floor at the mean level": Design(floor=57.8),
    "the same, levels alike (SD .5)": Design(floor=57.8, block_sd=0.5),
    "the same, no shared adapters": Design(floor=57.8, block_sd=0.5, shared=False),
    "ratios 0 and 0.5, levels alike": Design(ratios=(0.0, 0.5), floor=57.8, block_sd=0.5),
    "SD .2 and 3, levels alike": Design(own=(0.2,) * 3 + (3.0,) * 3, floor=57.8, block_sd=0.5),
}
"""Designs with blocks at the floor: its upper limit, 2.2 points above, is the mean level of the blocks."""
POWERS = {
    "no shared adapters, one method 1 point worse": Design(shared=False, leads=(-1.0, 0, 0, 0, 0, 0)),
    "the same, method x block SD 1": Design(shared=False, leads=(-1.0, 0, 0, 0, 0, 0), interaction=1.0),
    "Table 2's design, one method 1 point worse": Design(leads=(-1.0, 0, 0, 0, 0, 0)),
    "ratios 0 and 0.5, one method 2 points worse": Design(ratios=(0.0, 0.5), leads=(-2.0, 0, 0, 0, 0, 0)),
    "SD .2 and 3, a steady method 1 point worse": Design(own=(0.2,) * 3 + (3.0,) * 3, leads=(-1.0, 0, 0, 0, 0, 0)),
}


def skeleton(design: Design) -> pd.DataFrame:
    """Return the table of a design without scores: a row for each method, setting, ratio, language, seed, outcome."""
    rows = []
    for number, ratio, language, seed, outcome in itertools.product(
        range(len(design.settings)), design.ratios, LANGUAGES, range(1, design.seeds + 1), ("en", "tl")
    ):
        shared = ratio == 0 and design.shared
        if outcome == "en" and shared and language != LANGUAGES[0]:
            continue  # the English result of a shared adapter is one row
        for method in METHODS:
            if design.lacking and method == METHODS[-1] and seed == design.seeds:
                continue
            owner = "any" if shared else language
            rows.append(
                {
                    "setting": f"model {number}",
                    "task": "xnli",
                    "model": f"model {number}",
                    "method": method,
                    "language": "" if outcome == "en" and shared else language,
                    "tl_ratio": ratio,
                    "seed": seed,
                    "outcome": outcome,
                    "adapter": f"{method} {number} {owner} {ratio} {seed}",
                    "variant": method.lower(),
                    "arm": "matched",
                }
            )
    table = pd.DataFrame(rows)
    if design.floor is None:
        return table
    return table.assign(**{"test_size": 2000.0, "floor/tl/majority": design.floor / 100})


def scores(design: Design, table: pd.DataFrame, rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Return F1 (0 to 1) of the rows of a table in each draw, of shape (draws, rows)."""
    method = table["method"].map(METHODS.index).to_numpy()
    settings = {f"model {number}": sd for number, sd in enumerate(design.settings)}
    scale = np.array(design.own)[method] * table["setting"].map(settings).to_numpy(dtype=float)

    def effect(columns: Sequence[str], sd: float) -> NDArray[np.float64]:
        codes = table.groupby(list(columns), sort=False).ngroup().to_numpy()
        return np.asarray(sd * rng.standard_normal((draws, codes.max() + 1))[:, codes])

    block = ["setting", "language", "tl_ratio"]
    # Levels do not depend on the ratio, so that contrasts of ratios have no true difference either.
    level = 60 + np.where(table["outcome"] == "tl", effect(["setting", "language"], design.block_sd), 0.0)
    level += np.array(design.leads)[method]
    # A seed's items and order, and an adapter's luck, are common to what the adapter is scored on.
    level += effect(["setting", "seed", "tl_ratio", "outcome"], design.seed_sd)
    level += scale * effect(["adapter", "outcome"], _ADAPTER_SD)
    level += scale * effect(["adapter", *block, "outcome"], _OWN_SD)
    level += effect(["method", *block, "outcome"], design.interaction)
    if design.collapsed:
        adapters = table["adapter"].to_numpy(dtype=object)
        chosen = adapters[rng.integers(len(adapters), size=draws)]
        level -= 30 * (adapters == chosen[:, None])
    return np.asarray(level / 100)
