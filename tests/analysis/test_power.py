"""What the design could have seen agrees with the libraries and with itself."""

from __future__ import annotations

import designs
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from analysis.records import NotTestable, find
from analysis.stats.correlations import partial_pearson
from analysis.stats.differences import DETECTABLE, SCOPES, differences
from analysis.stats.power import (
    BY_SIZE,
    NEEDED,
    detectable_by_size,
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


@pytest.mark.parametrize("scope", SCOPES)
def test_the_curve_passes_through_the_present_design_and_ends_at_the_margin(scope):
    table = designs.table(METHODS, seed_sd=2.0, interaction_sd=0.5, seeds=range(4), at=2)
    found = detectable_by_size(table, outcome="tl", scope=scope, margin=1.0)
    curve = {r.n: r.effect for r in find(found, test=BY_SIZE)}
    (told,) = find(differences(table, outcome="tl", scope=scope), test=DETECTABLE)
    present = 4 if scope == "these" else 10  # ratio 0 is one block of three languages
    assert curve[present] == pytest.approx(told.effect)
    assert list(curve.values()) == sorted(curve.values(), reverse=True)
    (needed,) = find(found, test=NEEDED)
    sizes = sorted(curve)
    assert sizes[-2] < needed.n <= sizes[-1]


def test_the_curve_has_the_power_that_it_is_asked_for():
    """Two methods that differ by what eight seeds detect, drawn with eight seeds, tested as the report does."""
    at_four = designs.table({"LoRA": 0, "DoRA": 0}, languages=("sw",), seeds=range(4), outcomes=("tl",), at=1)
    curve = {r.n: r.effect for r in detectable_by_size(at_four, outcome="tl", scope="these", margin=0.01)}
    spread = at_four.pivot_table(index=["tl_ratio", "seed"], columns="method", values="f1").mul(100)
    error = (spread["LoRA"] - spread["DoRA"]).groupby("tl_ratio").var().mean()  # of a difference of two runs
    rng = np.random.default_rng(0)
    drawn = curve[8] + rng.normal(0, error**0.5, (2000, 4, 8))
    t = drawn.mean(axis=(1, 2)) / (drawn.var(axis=2, ddof=1).mean(axis=1) / 32) ** 0.5
    assert np.mean(np.abs(t) > stats.t.isf(0.025, 28)) == pytest.approx(0.8, abs=0.04)


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
    assert detectable_by_size(designs.table(METHODS, seeds=(1,)), outcome="tl", scope="these", margin=1.0) == []


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
