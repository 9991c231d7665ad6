"""The unit is the adapter, a missing seed gains nothing, and each pair has its own error."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.records import find
from analysis.stats.cells import cells
from analysis.stats.differences import (
    COUNT,
    DETECTABLE,
    LIKE_THESE,
    MEAN,
    SAME,
    SCOPES,
    compare,
    differences,
    pair_tests,
)
from analysis.stats.groupings import TEXT, groupings
from analysis.stats.moderated import least_p, moderated
from analysis.stats.units import adjusted_means
from benchmarks.simulated.designs import NULLS, Design
from benchmarks.simulated.false_alarms import claims, power, simulate

NAMES = ("A", "B", "C", "D", "E", "F")
FULL = designs.table(dict.fromkeys(NAMES, 0.0), outcomes=("tl",))


def test_the_languages_of_one_adapter_are_one_block():
    found = cells(FULL, "tl")
    assert len(found.means) == 10  # 3 ratios of 3 languages, and one of ratio 0
    assert "hi+sw+ur 0" in found.means.index
    assert len(found.units) == FULL["adapter"].nunique() == 180
    zero = FULL[(FULL["method"] == "A") & (FULL["tl_ratio"] == 0)]
    assert found.means.loc["hi+sw+ur 0", "A"] == pytest.approx(100 * zero["f1"].mean())
    assert "216 results of 180 adapters: those of one adapter are averaged" in found.note
    assert len(cells(FULL.drop(columns="adapter"), "tl").means) == 12


def test_a_method_that_was_scored_in_fewer_languages_is_adjusted_for_them():
    """Its adapter lacks the hard language, which is ten points lower for all."""
    table = designs.table(dict.fromkeys(NAMES, 0.0), outcomes=("tl",), ratios=(0.0,), seed_sd=0.1, block_sd=0)
    table["f1"] -= 0.1 * (table["language"] == "hi")
    part = table[~((table["method"] == "A") & (table["language"] == "hi"))]
    means = {r.groups[0]: r.effect for r in find(differences(part, outcome="tl"), test=MEAN)}
    assert means["A"] == pytest.approx(means["B"], abs=0.3)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_method_that_lacks_the_hard_seed_gains_nothing(scope):
    """Seed 3 is six points harder for all."""
    table = FULL.assign(f1=FULL["f1"] - 0.06 * (FULL["seed"] == 3))
    part = table[~((table["method"] == "A") & (table["seed"] == 3))]
    means = {r.groups[0]: r.effect for r in find(differences(part, outcome="tl", scope=scope), test=MEAN)}
    assert means["A"] == pytest.approx(means["B"], abs=1.0)
    found = pair_tests(differences(part, outcome="tl", scope=scope))
    assert not any(r.p_adjusted < 0.05 for r in found)
    assert "unequal seeds: 2 to 3 runs a cell; means are adjusted for them" in found[0].note


def test_adjusted_means_are_those_of_the_additive_model():
    from statsmodels.formula.api import ols

    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5)) + np.arange(5)
    values[0, 4] = values[2, 1] = values[2, 2] = np.nan
    row, column = np.nonzero(~np.isnan(values))
    frame = pd.DataFrame({"y": values[row, column], "row": row.astype(str), "column": column.astype(str)})
    fit = ols("y ~ row + column", frame).fit()
    every = pd.DataFrame({"row": np.repeat(list("0123"), 5), "column": list("01234") * 4})
    expected = fit.predict(every).groupby(every["row"]).mean().to_numpy()
    assert adjusted_means(values)[0] == pytest.approx(expected)
    plain = rng.normal(size=(3, 4))
    assert (adjusted_means(plain)[0] == plain.mean(axis=1)).all()


def test_rows_that_share_no_column_are_not_compared():
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, np.nan], [np.nan, np.nan, 9.0]])
    means, group = adjusted_means(values)
    assert group.tolist() == [True, True, False]
    assert means[:2].tolist() == [1.5, 3.5]
    assert np.isnan(means[2])


def test_two_methods_in_one_cell_are_compared_by_the_paired_t_test_over_seeds():
    table = FULL[FULL["method"].isin(["A", "B"]) & (FULL["language"] == "sw") & (FULL["tl_ratio"] == 0.1)]
    wide = table.pivot(index="seed", columns="method", values="f1") * 100
    expected = stats.ttest_rel(wide["A"], wide["B"])
    (found,) = pair_tests(differences(table, outcome="tl"))
    assert (found.statistic, found.df, found.p) == (
        pytest.approx(expected.statistic),
        (2.0,),
        pytest.approx(expected.pvalue),
    )
    assert found.p_adjusted == pytest.approx(found.p, abs=0.02)
    interval = expected.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high), rel=0.1)


def test_two_methods_on_blocks_like_these_are_compared_by_the_paired_t_test_over_blocks():
    table = FULL[FULL["method"].isin(["A", "B"])]
    means = cells(table, "tl").means
    expected = stats.ttest_rel(means["A"], means["B"])
    (found,) = pair_tests(differences(table, outcome="tl", scope=LIKE_THESE))
    assert (found.statistic, found.df, found.p) == (
        pytest.approx(expected.statistic),
        (9.0,),
        pytest.approx(expected.pvalue),
    )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("at", range(6))
def test_letters_order_and_intervals_follow_from_the_same_pairs(scope, at):
    leads = {name: -0.8 * position for position, name in enumerate(NAMES)}
    table = designs.table(leads, outcomes=("tl",), at=at)
    records = differences(table, outcome="tl", scope=scope, margin=1.0)
    tested = pair_tests(records)
    for record in tested:
        low, high = record.interval
        assert (low > 0 or high < 0) == (record.p_adjusted < 0.05)
        assert low < record.effect < high
    (count,) = find(records, test=COUNT)
    assert (count.n, count.effect) == (sum(r.p_adjusted < 0.05 for r in tested), 15)
    letters = {r.groups[0]: r.note for r in groupings(records, outcome="tl", analysis="primary") if r.test == "letters"}
    for record in tested:
        a, b = record.groups
        assert bool(set(letters[a]) & set(letters[b])) == (record.p_adjusted >= 0.05)


def test_a_significant_difference_against_the_order_of_the_means_gives_no_order():
    """In a design with holes a pair's own blocks may say the opposite of the adjusted means."""
    records = [r for r in differences(FULL, outcome="tl") if r.test != COUNT]
    means = [r for r in records if r.test == MEAN]
    first, second = sorted(means, key=lambda r: r.effect)[:2]
    names = {first.groups[0], second.groups[0]}
    turned = [
        type(r)(**{**vars(r), "effect": 3.0 if r.groups[0] == first.groups[0] else -3.0, "p_adjusted": 0.001})
        if {*r.groups} == names
        else r
        for r in records
    ]
    assert "no order" in find(groupings(turned, outcome="tl", analysis="primary"), test=TEXT)[0].note


def test_alike_errors_are_pooled_and_unlike_ones_are_not():
    rng = np.random.default_rng(1)
    first, second = np.triu_indices(6, 1)

    def errors(sd: list[float]) -> tuple[np.ndarray, np.ndarray]:
        values = rng.normal(size=(6, 10, 3)) * np.array(sd)[:, None, None]
        found = moderated(values[first] - values[second])
        return found.error, found.df

    error, df = errors([1.0] * 6)
    assert error.max() / error.min() < 1.3
    assert df.min() > 25
    error, df = errors([0.2] * 3 + [3.0] * 3)
    steady = (first < 3) & (second < 3)
    assert error[steady].max() < 0.15  # the truth is .2 * sqrt(2 / 30) = .05
    assert error[~steady].min() > 0.3
    assert (df <= 22).all()


def test_the_least_p_is_that_of_bonferroni_at_most_and_of_one_pair_exactly():
    one = least_p(np.zeros((2, 4, 3), dtype=bool).tobytes(), (2, 4, 3))
    assert np.quantile(one, 0.05) == pytest.approx(0.05, abs=0.01)
    fifteen = least_p(np.zeros((6, 10, 3), dtype=bool).tobytes(), (6, 10, 3))
    assert 0.05 / 15 < np.quantile(fifteen, 0.05) < 0.012


def test_the_adjusted_p_keeps_falling_beyond_what_the_draws_resolve():
    compared = compare(cells(FULL, "tl"), "these")
    values = [compared.adjusted(p) for p in (0.5, 0.01, 1e-3, 1e-6, 1e-12)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(15e-12)
    assert (
        compared.adjusted(compared.critical(0.05) * 0.999) < 0.05 <= compared.adjusted(compared.critical(0.05) * 1.01)
    )


def test_equivalence_is_on_the_same_errors_and_holm_corrected():
    records = differences(FULL, outcome="tl", margin=1.0)
    by_pair = {r.groups: r for r in pair_tests(records)}
    for record in find(records, test=SAME):
        test = by_pair[record.groups]
        error = test.effect / test.statistic
        assert record.p == pytest.approx(stats.t.sf((1 - abs(test.effect)) / error, test.df[0]))
        assert record.p_adjusted >= record.p
    assert find(differences(FULL, outcome="tl"), test=SAME) == []
    assert find(records, test=DETECTABLE)[0].effect > 0


def test_the_order_of_rows_and_names_of_adapters_change_nothing():
    one = differences(FULL, outcome="tl", margin=1.0)
    other = FULL.sample(frac=1, random_state=1)
    assert differences(other.assign(adapter="x" + other["adapter"]), outcome="tl", margin=1.0) == one


@pytest.mark.parametrize("name", ["ratios 0 and 0.5", "a missing seed, seed effect of SD 2"])
def test_what_is_simulated_is_what_the_first_screen_says(name):
    """The first draws go from the table to the sentences and must make the same claims; `simulate` checks it."""
    shares = simulate(name, NULLS[name], claims, 60, 4)
    assert 0 <= shares["difference"] <= 0.2
    assert shares["languages disagree"] <= 0.2
    apart = Design(ratios=(0.0, 0.5), leads=(-9.0, 0, 0, 0, 0, 0))
    assert simulate(name, apart, power, 20, 2)["these, a pair"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sd", "blocks", "expected"),
    [
        ([1.0] * 6, 10, 0.05),
        ([1.0] * 6, 1, 0.045),
        ([0.2] * 3 + [3.0] * 3, 10, 0.02),
        ([0.2] + [3.0] * 5, 10, 0.05),
        ([1.0] * 3 + [2.0] * 3, 1, 0.06),
    ],
)
def test_false_alarms_keep_to_their_level(sd, blocks, expected):
    """The share of 2,000 designs of three seeds in which some pair of equal methods is called different."""
    rng = np.random.default_rng(6)
    first, second = np.triu_indices(6, 1)
    shape = (6, blocks, 3)
    values = rng.normal(size=(2000, *shape)) * np.array(sd)[:, None, None]
    null = least_p(np.zeros(shape, dtype=bool).tobytes(), shape)
    alarms = np.nanmin(moderated(values[:, first] - values[:, second]).p, axis=1) < np.quantile(null, 0.05)
    assert alarms.mean() == pytest.approx(expected, abs=0.016)
