"""Drawn scores of methods by seed, and what the rule for rounds of seeds says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.sequential.verdict import Verdict, judge

METHODS = list("ABCDE")


def scores(seeds: int = 14, means=(0, -0.1, -3, -5, -9), sd: float = 0.4, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = 60 + np.array(means) + rng.normal(0, sd, (seeds, len(means))) + rng.normal(0, 3, (seeds, 1))
    return pd.DataFrame(values, index=range(1, seeds + 1), columns=METHODS[: len(means)])


def verdict(table: pd.DataFrame, **options: object) -> Verdict:
    return judge(table, **{"margin": 1.0, "max_seeds": 20, **options})
