"""What the design could have seen agrees with the libraries and with itself."""

from __future__ import annotations

import designs
import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower

from analysis.records import NotTestable, find
from analysis.stats.correlations import partial_pearson
from analysis.stats.power import (
    CURVE,
    detectable_difference,
    detectable_item_difference,
    power,
    seeds_needed,
    two_sample_power,
)

METHODS = dict.fromkeys(("LoRA", "DoRA", "VeRA"), 0.0)


@pytest.mark.parametrize(("difference", "sd", "n"), [(1, 1, 3), (1, 2, 20), (0.3, 1, 5), (2, 0.5, 4)])
def test_the_power_of_two_samples_is_that_of_statsmodels(difference, sd, n):
    expected = TTestIndPower().power(difference / sd, n, 0.05)
    assert two_sample_power(difference=difference, sd=sd, n=n) == pytest.approx(expected, abs=1e-6)


def test_seeds_and_least_difference_are_each_others_inverse():
    n = seeds_needed(difference=1, sd=2)
    assert detectable_difference(sd=2, n=n) <= 1 < detectable_difference(sd=2, n=n - 1)


def test_a_difference_too_small_for_any_number_of_seeds_is_said():
    with pytest.raises(NotTestable, match="100,000"):
        seeds_needed(difference=1e-4, sd=1)


def test_the_least_difference_on_items_has_the_power_it_is_asked_for():
    """Drawn 4,000 times: two methods on 1,000 items that disagree on a tenth."""
    d = detectable_item_difference(items=1000, discordance=0.1)
    rng = np.random.default_rng(0)
    first, second, _ = rng.multinomial(1000, [(0.1 + d) / 2, (0.1 - d) / 2, 0.9], size=4000).T
    seen = np.abs(first - second) / np.sqrt(first + second) > 1.959964
    assert seen.mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("interaction_sd", [0.0, 0.5])
def test_the_curve_crosses_where_the_seeds_suffice(interaction_sd):
    table = designs.table(METHODS, seed_sd=2.0, interaction_sd=interaction_sd, seeds=range(4), at=2)
    found = power(table, outcome="tl")
    curve = {r.n: r.statistic for r in find(found, test=CURVE)}
    assert list(curve.values()) == sorted(curve.values())
    (needed,) = find(found, test="seeds needed, blocked")
    if needed.n is not None and needed.n in curve:
        assert curve[needed.n] >= 0.8 > curve.get(needed.n - 1, 0)


def test_where_the_interaction_is_the_limit_more_seeds_do_not_help():
    table = designs.table(METHODS, seed_sd=0.2, interaction_sd=4.0)
    (needed,) = find(power(table, outcome="tl"), test="seeds needed, blocked")
    assert needed.n is None
    assert "more blocks are needed" in needed.note


def test_one_seed_does_not_tell_how_many_are_needed():
    found = power(designs.table(METHODS, seeds=(1,)), outcome="tl")
    (needed,) = find(found, test="seeds needed, blocked")
    assert needed.n is None
    assert "one seed a cell" in needed.note
    assert not find(found, test=CURVE)


def test_a_design_that_suffices_needs_one_seed():
    (needed,) = find(power(designs.table(METHODS, seed_sd=0.1), outcome="tl"), test="seeds needed, blocked")
    assert needed.n == 1


def test_a_correlation_in_one_group_is_pearsons():
    from scipy.stats import pearsonr

    rng = np.random.default_rng(0)
    x = rng.normal(size=18)
    y = x + rng.normal(size=18)
    found, expected = partial_pearson(x, y, ["sw"] * 18), pearsonr(x, y)
    assert (found.effect, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    interval = expected.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_the_critical_correlations_of_the_paper():
    """Figure 4: |r| must reach .811 at n = 6 and .468 at n = 18."""
    for n, critical in ((6, 0.811), (18, 0.468)):
        x = np.arange(n, dtype=float)
        noise = np.random.default_rng(n).normal(size=n)
        noise -= np.polyval(np.polyfit(x, noise, 1), x)
        z = (x - x.mean()) / x.std()
        for r, significant in ((critical + 0.002, True), (critical - 0.002, False)):
            y = r * z + np.sqrt(1 - r * r) * noise / noise.std()
            assert (partial_pearson(x, y, ["sw"] * n).p < 0.05) == significant


def test_a_difference_between_languages_is_no_correlation():
    """Languages that are high in both, and nothing within them."""
    rng = np.random.default_rng(3)
    groups = ["sw"] * 20 + ["hi"] * 20
    level = np.repeat([0.0, 10.0], 20)
    found = partial_pearson(level + rng.normal(size=40), level + rng.normal(size=40), groups)
    assert abs(found.effect) < 0.5
    assert found.df == (37,)
