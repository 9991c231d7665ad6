"""False alarms and power of the primary test on designs whose truth is known.

The paper's design: 6 methods in 12 blocks with 3 seeds, an SD between blocks of 5 points and between seeds of 1. What
the primary test must give follows from the noncentral F; for the tests beside it, 4,000 draws of the same simulation
gave the shares below. The bounds are three standard errors of the binomial.
"""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats.contrasts import paired_t
from analysis.stats.distributions import range_quantile
from analysis.stats.equivalence import tost, wellek
from analysis.stats.linear import additive, interaction
from analysis.stats.multiplicity import holm
from analysis.stats.own_errors import greenhouse_geisser, sphericity
from analysis.stats.power import power
from analysis.stats.ranks import friedman, mean_ranks
from analysis.stats.replication import anova

METHODS, BLOCKS, SEEDS = [f"m{i}" for i in range(6)], [f"b{i:02}" for i in range(12)], 3
DRAWS = 400


def simulate(*, lead: float, interaction_sd: float) -> dict[str, float]:
    """Return the share of draws in which each test calls the methods different at .05."""
    rng = np.random.default_rng(20260610)
    method = np.repeat(METHODS, len(BLOCKS))
    block = np.tile(BLOCKS, len(METHODS))
    hits = dict.fromkeys(("one-way", "additive", "primary", "friedman"), 0)
    for _ in range(DRAWS):
        cell = rng.normal(0, interaction_sd, (6, 12)) + rng.normal(0, 5, 12) - lead * (np.arange(6) == 0)[:, None]
        runs = cell[..., None] + rng.normal(0, 1, (6, 12, SEEDS))
        hits["one-way"] += anova({m: runs[i].ravel() for i, m in enumerate(METHODS)}).p < 0.05
        hits["primary"] += additive(runs.mean(axis=2).ravel(), method, block).test.p < 0.05
        every = (runs.ravel(), np.repeat(method, SEEDS), np.repeat(block, SEEDS))
        hits["additive"] += additive(*every).test.p < 0.05
        hits["friedman"] += friedman(mean_ranks(runs.mean(axis=2).T), 12)[0].p < 0.05
    return {name: count / DRAWS for name, count in hits.items()}


def near(found: float, expected: float) -> bool:
    """Is a share of draws within three standard errors of what is expected (at least those of 2 %)?"""
    spread = max(expected * (1 - expected), 0.02 * 0.98)
    return abs(found - expected) <= 3 * np.sqrt(spread / DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lead", "interaction_sd", "beside"),
    [
        (0.0, 0.0, {"one-way": 0.0, "additive": 0.044, "friedman": 0.045}),
        (1.0, 0.0, {"one-way": 0.0003, "additive": 0.995, "friedman": 0.952}),
        (2.0, 0.0, {"one-way": 0.058, "additive": 1.0, "friedman": 1.0}),
        (0.0, 1.0, {"one-way": 0.0, "additive": 0.402, "friedman": 0.043}),
        (1.0, 1.0, {"one-way": 0.0015, "additive": 0.890, "friedman": 0.374}),
    ],
)
def test_how_often_each_test_calls_the_methods_different(lead, interaction_sd, beside):
    """Where methods and blocks interact, the additive test cries wolf in four of ten designs without a difference; the
    one-way test sees next to nothing in any.
    """
    variance = interaction_sd**2 + 1 / SEEDS
    centre = 12 * lead**2 * (5 / 6) / variance
    primary = stats.ncf.sf(stats.f.ppf(0.95, 5, 55), 5, 55, centre) if lead else 0.05
    found = simulate(lead=lead, interaction_sd=interaction_sd)
    for name, share in {"primary": float(primary), **beside}.items():
        assert near(found[name], share), (name, found[name], share)


@pytest.mark.slow
def test_the_power_that_is_printed_is_the_power_that_there_is():
    """`power` estimates it from one table; over tables with an interaction the median is near the truth, .487."""
    found = []
    for at in range(40):
        table = designs.table(dict.fromkeys(METHODS, 0.0), interaction_sd=1.0, outcomes=("tl",), at=at)
        found += [r.statistic for r in power(table, outcome="tl") if r.test == "power at the margin, F"]
    assert float(np.median(found)) == pytest.approx(0.487, abs=0.06)


@pytest.mark.slow
def test_the_test_of_an_interaction_keeps_its_level():
    rng = np.random.default_rng(5)
    method = np.repeat(METHODS, len(BLOCKS) * SEEDS)
    block = np.tile(np.repeat(BLOCKS, SEEDS), len(METHODS))
    alarms = [interaction(rng.normal(0, 1, len(method)), method, block)[2].p < 0.05 for _ in range(DRAWS)]
    assert near(float(np.mean(alarms)), 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("interaction_sd", [0.0, 1.0])
def test_equivalence_is_rarely_found_between_methods_a_margin_apart(interaction_sd):
    """Two methods are one point apart and the others midway, the edge of what TOST and Wellek's test may call the same.
    Wellek's margin is in units of an SD that is estimated, which does not cost it its level.
    """
    rng = np.random.default_rng(7)
    method, block = np.repeat(METHODS, len(BLOCKS)), np.tile(BLOCKS, len(METHODS))
    lead = np.array([0.5, -0.5, 0, 0, 0, 0])[:, None]
    hits = {"TOST": 0, "Wellek": 0}
    for _ in range(DRAWS):
        spread = np.sqrt(interaction_sd**2 + 1 / SEEDS)
        means = lead + rng.normal(0, 5, 12) + rng.normal(0, spread, (6, 12))
        fit = additive(means.ravel(), method, block)
        f = fit.test
        hits["TOST"] += tost(means[0], means[1], 1.0).p < 0.05
        hits["Wellek"] += wellek(f.statistic, f.df, 12, 1 / np.sqrt(2 * fit.variance)).p < 0.05
    assert all(near(count / DRAWS, 0.05) for count in hits.values()), hits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loud", "expected"),
    [
        (0.0, {"John": 0.05, "primary": 0.052, "corrected": 0.028, "Tukey": 0.034, "own": 0.038}),
        (3.0, {"John": 1.0, "primary": 0.104, "corrected": 0.045, "Tukey": 0.118, "own": 0.028}),
    ],
)
def test_unequal_errors_cost_the_primary_test_its_level_and_not_the_tests_beside_it(loud, expected):
    """Two of six methods go their own ways from block to block, by an SD of `loud`, and the others by .3, or none does.

    The shares are those of designs without a difference, of John's test and F, and with one quiet method two points
    worse, of false alarms among pairs; the quiet pair is then found by its own error, and by Tukey's less often.
    """
    rng = np.random.default_rng(11)
    method, block = np.repeat(METHODS, len(BLOCKS)), np.tile(BLOCKS, len(METHODS))
    spread = np.sqrt(np.array([0.3 if loud else 0.0] * 4 + [loud] * 2) ** 2 + 1 / SEEDS)[:, None]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    hits = dict.fromkeys((*expected, "quiet, own", "quiet, Tukey"), 0)
    for _ in range(DRAWS):
        means = rng.normal(0, 1, (6, 12)) * spread
        frame = pd.DataFrame(means.T, columns=METHODS)
        hits["John"] += sphericity(frame).p < 0.05
        hits["primary"] += additive(means.ravel(), method, block).test.p < 0.05
        hits["corrected"] += greenhouse_geisser(frame).p < 0.05
        means[0] -= 2
        fit = additive(means.ravel(), method, block)
        each = [fit.difference(METHODS[i], METHODS[j]) for i, j in pairs]
        by_tukey = np.array([abs(apart) / error * np.sqrt(2) > range_quantile(0.95, 6, 55) for apart, error in each])
        own = holm([paired_t(means[i], means[j]).p for i, j in pairs]) < 0.05
        true = np.array([i == 0 for i, _ in pairs])
        hits["Tukey"] += by_tukey[~true].any()
        hits["own"] += own[~true].any()
        hits["quiet, Tukey"] += by_tukey[0]
        hits["quiet, own"] += own[0]
    for name, share in expected.items():
        assert near(hits[name] / DRAWS, share), (name, hits[name] / DRAWS, share)
    assert hits["quiet, own"] > 0.98 * DRAWS
    assert (hits["quiet, Tukey"] < 0.4 * DRAWS) == bool(loud)
