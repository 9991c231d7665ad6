"""Tables and items with a known truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

LANGUAGES, RATIOS, SEEDS = ("ur", "sw", "hi"), (0.0, 0.01, 0.1, 0.5), (1, 2, 3)


def table(
    methods: Mapping[str, float],
    *,
    languages: Sequence[str] = LANGUAGES,
    ratios: Sequence[float] = RATIOS,
    seeds: Sequence[int] = SEEDS,
    seed_sd: float = 1.0,
    interaction_sd: float = 0.0,
    block_sd: float = 5.0,
    by_ratio: Mapping[float, float] | None = None,
    outcomes: Sequence[str] = ("en", "tl"),
    at: int = 0,
) -> pd.DataFrame:
    """Return a tidy table; `methods` and `by_ratio` are true differences in points. English at ratio 0 is one row for
    all languages, as the adapter is one.
    """
    rng = np.random.default_rng(at)
    rows = []
    for outcome in outcomes:
        blocks = [(("" if outcome == "en" and r == 0 else x), r) for x, r in itertools.product(languages, ratios)]
        for language, ratio in dict.fromkeys(blocks):
            base = 60 + rng.normal(0, block_sd) * (by_ratio is None) + (by_ratio or {}).get(ratio, 0.0)
            for method, lead in methods.items():
                cell = base + lead + rng.normal(0, interaction_sd)
                for seed in seeds:
                    owner = "any" if ratio == 0 else language
                    rows.append(
                        {
                            "method": method,
                            "task": "xnli",
                            "model": "Llama-3.1-8B",
                            "language": language,
                            "tl_ratio": ratio,
                            "seed": seed,
                            "outcome": outcome,
                            "f1": (cell + rng.normal(0, seed_sd)) / 100,
                            "adapter": f"{method} {owner} {ratio} {seed}",
                        }
                    )
    return pd.DataFrame(rows)


def alone(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs as done one after another on one machine."""
    order = np.arange(len(runs))
    return runs.assign(run_id=order.astype(str), started=10 * order, ended=10 * order + 9, place="here")


def items(accuracy: Mapping[str, float], *, n: int = 400, seeds: Sequence[int] = (1,), at: int = 0) -> pd.DataFrame:
    """Return predictions of methods with nearly nested errors: items are right up to a difficulty."""
    rng = np.random.default_rng(at)
    parts = []
    for seed in seeds:
        difficulty = rng.random(n)
        for method, share in accuracy.items():
            noise = rng.normal(0, 0.05, n)
            right = (difficulty + noise < share).astype(float)
            parts.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "language": "sw",
                        "tl_ratio": 0.1,
                        "seed": seed,
                        "outcome": "tl",
                        "id": [str(i) for i in range(n)],
                        "correct": right,
                        "p_gold": np.where(right == 1, 0.8, 0.2),
                        "confidence": 0.8,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
