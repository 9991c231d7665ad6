"""Critical values of repeated t tests, the test of collapses, and one look, whose tests can be written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.stats.multiplicity import holm
from analysis.stats.sequential.boundaries import critical_values, cut, move, spent, start
from analysis.stats.sequential.collapses import TOLERATED, most_collapses, unreliable
from analysis.stats.sequential.race import SHARES, Race


def test_critical_values_are_exceeded_as_often_as_they_should():
    """200,000 samples of 12 normal values; the bounds are four standard errors."""
    level, most = 0.05, 12
    values = critical_values(level * np.diff(spent(np.arange(1, most + 1), most)))
    assert values[0] == math.inf  # two seeds
    rng = np.random.default_rng(1)
    sample = rng.standard_normal((200_000, most))
    alive = np.ones(len(sample), dtype=bool)
    for n in range(3, most + 1):
        part = sample[:, :n]
        t = part.mean(axis=1) / part.std(axis=1, ddof=1) * np.sqrt(n)
        alive &= np.abs(t) <= values[n - 2]
        expected = level * n / most
        assert 1 - alive.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / len(sample))), n


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_a_single_look_is_a_t_test(seeds):
    levels = [0.0] * (seeds - 2) + [0.01]
    assert critical_values(levels)[-1] == pytest.approx(stats.t.isf(0.005, seeds - 1), rel=2e-3)


@pytest.mark.parametrize(
    "bounds",
    [
        [2.413] * 5,  # Pocock
        [2.040 * math.sqrt(5 / k) for k in range(1, 6)],  # O'Brien and Fleming
    ],
)
def test_five_looks_at_many_values_have_the_published_boundaries(bounds):
    """Jennison and Turnbull (2000), tables 2.1 and 2.3, for known variance and a level of .05.

    The level that their boundary spends at each look follows from the multivariate normal distribution; from that
    level the same boundary must come out, here with looks at 12, 24, ... values, on the scale of tail probabilities.
    """
    looks = np.arange(1, 6)
    correlation = np.sqrt(np.minimum.outer(looks, looks) / np.maximum.outer(looks, looks))
    kept = [1.0]
    for k in looks:
        normal = stats.multivariate_normal(np.zeros(k), correlation[:k, :k], seed=1)
        kept.append(float(normal.cdf(bounds[:k], lower_limit=np.negative(bounds[:k]))))
    assert 1 - kept[-1] == pytest.approx(0.05, abs=2e-4)
    levels = np.zeros(59)
    levels[12 * looks - 2] = -np.diff(kept)
    found = critical_values(levels)[12 * looks - 2]
    nominal = stats.norm.isf(stats.t.sf(found, 12 * looks - 1))
    assert nominal == pytest.approx(bounds, rel=0.012)  # a little too large, by the width of the cells


def test_a_cut_takes_exactly_the_level():
    now = move(cut(start(), 2, 0.01)[1], 2)
    value, left = cut(now, 3, 0.02)
    assert now.sum() == pytest.approx(0.99)
    assert left.sum() == pytest.approx(0.97)
    assert stats.t.sf(value, 2) < 0.02
    assert cut(now, 3, 0.0)[0] == math.inf


def test_one_look_is_holm_for_level_and_bonferroni_for_worse():
    """With three seeds at most there is one look, whose tests can be written down."""
    rng = np.random.default_rng(5)
    values = rng.normal([0, 0, 0.1, -0.2, -40], 0.15, (400, 3, 5))
    race = Race(len(values), 5, most=3, margin=1.0, alpha=0.05)
    for seed in range(3):
        race.look(values[:, seed])
    pair = values[:, :, :1] - values[:, :, 1:]
    error = pair.std(axis=1, ddof=1) / np.sqrt(3)
    p = stats.t.cdf((pair.mean(axis=1) - 1) / error, 2)
    expected = np.array([holm(row) for row in p]) < 0.05 * SHARES["level"]
    assert 0.2 < expected[:, 0].mean() < 1
    assert (race.level[:, 0, 1:] != expected).mean() < 0.002  # critical values are within .2 %
    half = stats.t.isf(0.05 * SHARES["worse"] / 4, 2) * error
    assert race.below[:, 0, 1:] == pytest.approx(pair.mean(axis=1) - half, rel=5e-3, abs=5e-3)


def test_collapses_are_judged_by_the_averaged_likelihood_ratio():
    """And the limit of their probability is that of Clopper and Pearson."""
    for k, n in ((0, 4), (2, 3), (3, 4), (4, 6), (8, 40)):
        ratio = integrate.quad(lambda p, k=k, n=n: p**k * (1 - p) ** (n - k), TOLERATED, 1, epsabs=0)[0]
        ratio /= (1 - TOLERATED) * TOLERATED**k * (1 - TOLERATED) ** (n - k)
        assert not unreliable([k], [n], 1 / (ratio * 1.001))[0]
        assert unreliable([k], [n], 1 / (ratio * 0.999))[0]
        limit = stats.binomtest(k, n).proportion_ci(0.9, "exact").high
        assert most_collapses(k, n, 0.05) == pytest.approx(limit)
    rng = np.random.default_rng(4)
    counts = (rng.random((20_000, 30)) < TOLERATED).cumsum(axis=1)[..., None]
    ever = unreliable(counts, np.arange(1, 31)[:, None], 0.05).any(axis=(1, 2))
    assert ever.mean() < 0.05


def test_a_level_candidate_runs_only_while_it_is_needed():
    """Of four candidates the first two are level with all, and the third is not yet level with the fourth alone."""
    race = Race(1, 4, most=20, margin=1.0, alpha=0.05)
    race.level[0] = ~np.eye(4, dtype=bool)
    race.level[0, 3, 2] = False
    race._decide()
    assert race.state[0].tolist() == [1, 1, 0, 1]
    assert race.running[0].tolist() == [False, False, True, True]
    race.running[:], race.below[0, 0, 2] = True, 1.5
    race._decide()  # the first would drop the third, and the second not: which of them is better matters
    assert race.running[0].all()


def test_what_a_dropped_method_leaves_goes_to_the_others():
    """With the same scores, the last pair has a lower bound for level if three other methods left early."""
    rng = np.random.default_rng(8)
    values = rng.normal(0, 0.6, (5, 5))
    left, stayed = (Race(1, 5, most=20, margin=1.0, alpha=0.05) for _ in range(2))
    for row in values:
        left.look((row - np.array([0, 0, 20, 20, 20]))[None])
        stayed.look((row - np.array([0, 0, 0.9, 0.9, 0.9]))[None])
    assert left.runs[0].tolist() == [5, 5, 4, 4, 4]
    assert left.above[0, 0, 1] < stayed.above[0, 0, 1]
    assert left._gone[0, 0] == pytest.approx(3 * 0.05 * SHARES["level"] * 4 / 20 / 4)
