"""The mixed model gives what lme4, pbkrtest and emmeans print, and the analysis of variance where that is exact."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import published
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from analysis.records import NotTestable, find
from analysis.stats.blocked import F_TEST, blocked
from analysis.stats.cells import cells
from analysis.stats.differences import LIKE_THESE, PAIR_TESTS, SCOPES, THESE, compare, differences
from analysis.stats.distributions import range_quantile
from analysis.stats.mixed.kenward_roger import contrasts, f_test
from analysis.stats.mixed.method_model import ADAPTER, BLOCK, INTERACTION, SEED, MethodModel, least_p
from analysis.stats.mixed.mixed_model import F_TESTS, mixed_model
from analysis.stats.mixed.reml import RESIDUAL, MixedModel
from benchmarks.simulated.designs import NULLS
from benchmarks.simulated.false_alarms import mixed, simulate

METHODS = {"LoRA": 0, "DoRA": 0, "VeRA": -1, "IA3": 0}


def close(value: float, printed: float) -> bool:
    """Is a value what is printed, to the last digit (and one beside it, as the other optimiser stops early)?"""
    digits = len(f"{printed}".partition(".")[2])
    return abs(value - printed) <= 1.5 * 10**-digits


def deviations(fit) -> dict[str, float]:
    return {name: float(np.sqrt(variance)) for name, variance in fit.variances.items()}


def test_dyestuff():
    """https://lme4.github.io/lme4/reference/Dyestuff.html and lme4's tests."""
    fit = MixedModel(np.ones((30, 1)), {"batch": np.repeat(range(6), 5)}).fit(published.DYESTUFF)
    assert -2 * fit.log_likelihood == pytest.approx(319.654276842342, abs=1e-8)
    assert close(deviations(fit)["batch"], 42.00)
    assert close(deviations(fit)[RESIDUAL], 49.51)
    assert close(fit.effects[0], 1527.50)
    assert close(np.sqrt(fit.covariance[0, 0]), 19.38)
    assert fit.singular == ()


def test_dyestuff2_has_no_variance_between_batches():
    fit = MixedModel(np.ones((30, 1)), {"batch": np.repeat(range(6), 5)}).fit(published.DYESTUFF2)
    assert -2 * fit.log_likelihood == pytest.approx(161.8283, abs=1e-4)
    assert fit.variances["batch"] == 0
    assert fit.singular == ("batch",)
    assert close(deviations(fit)[RESIDUAL], 3.716)
    assert fit.variances[RESIDUAL] == pytest.approx(np.var(published.DYESTUFF2, ddof=1))


def test_penicillin_has_crossed_factors():
    plate, sample = (codes.ravel() for codes in np.indices((24, 6)))
    fit = MixedModel(np.ones((144, 1)), {"plate": plate, "sample": sample}).fit(published.PENICILLIN.ravel())
    assert close(-2 * fit.log_likelihood, 330.8606)
    assert close(deviations(fit)["plate"], 0.8467)
    assert close(deviations(fit)["sample"], 1.9316)
    assert close(deviations(fit)[RESIDUAL], 0.5499)
    assert close(fit.effects[0], 22.9722)
    assert close(np.sqrt(fit.covariance[0, 0]), 0.8086)


def test_pastes_has_nested_factors():
    batch, cask, _ = (codes.ravel() for codes in np.indices((10, 3, 2)))
    fit = MixedModel(np.ones((60, 1)), {"batch": batch, "cask": 3 * batch + cask}).fit(published.PASTES.ravel())
    assert close(-2 * fit.log_likelihood, 246.9907)
    assert close(deviations(fit)["batch"], 1.2874)
    assert close(deviations(fit)["cask"], 2.9041)
    assert close(deviations(fit)[RESIDUAL], 0.8234)


def oats(keep: np.ndarray):
    """Fit yield = variety + nitrogen with random blocks and plots; varieties in the order of their names."""
    block, variety, nitrogen = (codes.ravel()[keep] for codes in np.indices((6, 3, 4)))
    design = np.hstack([np.eye(3)[variety][:, [1, 2, 0]], np.eye(4)[nitrogen][:, 1:]])
    return MixedModel(design, {"block": block, "plot": 3 * block + variety}).fit(published.OATS.ravel()[keep])


NITROGEN, VARIETY = np.eye(6)[3:], np.array([[1, -1, 0, 0, 0, 0], [1, 0, -1, 0, 0, 0], [0, 1, -1, 0, 0, 0.0]])


def test_a_balanced_split_plot_has_its_exact_f():
    """Varieties are tested against plots, nitrogen against what is left, as in the analysis of variance."""
    fit = oats(np.arange(72))
    y = published.OATS
    plots = y.mean(axis=2)
    varieties = 4 * 6 * plots.mean(axis=0).var(ddof=1)
    rest = plots - plots.mean(axis=0) - plots.mean(axis=1, keepdims=True) + plots.mean()
    expected = varieties / (4 * np.sum(rest**2) / 10)
    found = f_test(fit, VARIETY[:2])
    assert found.df == pytest.approx((2, 10))
    assert found.statistic == pytest.approx(expected, rel=1e-5)
    within = y - plots[:, :, None]
    nitrogen = within.mean(axis=(0, 1))
    error = np.sum((within - nitrogen) ** 2) / 51
    found = f_test(fit, NITROGEN)
    assert found.df == pytest.approx((3, 51))
    assert found.statistic == pytest.approx(18 * np.sum(nitrogen**2) / 3 / error, rel=1e-5)


def test_incomplete_oats_as_emmeans_prints_them():
    """The vignette "Sophisticated models" of emmeans: Kenward-Roger by pbkrtest, without nine of the plots."""
    fit = oats(np.setdiff1d(np.arange(72), np.array([1, 2, 3, 5, 8, 13, 21, 34, 55]) - 1))
    means = contrasts(fit, np.hstack([np.full((4, 3), 1 / 3), np.eye(4)[:, 1:]]))
    printed = [
        (78.89207, 7.294379, 7.78),
        (97.03425, 7.136271, 7.19),
        (114.19816, 7.136186, 7.19),
        (124.06857, 7.070235, 6.95),
    ]
    for found, expected in zip(zip(*means[:3], strict=True), printed, strict=True):
        assert all(map(close, found, expected))
    pairs = contrasts(fit, VARIETY)
    printed = [(-3.23, 6.55, 9.56), (8.31, 6.71, 9.80), (11.54, 6.67, 9.80)]
    for found, expected in zip(zip(*pairs[:3], strict=True), printed, strict=True):
        assert all(map(close, found, expected))
    linear = contrasts(fit, np.array([[-3, -1, 1, 3]]) @ np.hstack([np.full((4, 3), 1 / 3), np.eye(4)[:, 1:]]))
    assert all(
        map(close, (float(linear.effect[0]), float(linear.error[0]), float(linear.df[0])), (152.69, 15.60, 43.2))
    )


def test_a_crossed_incomplete_design_with_a_zero_variance_as_lmertest_prints_it():
    """anova(..., ddf = "Kenward-Roger") of Stroup's example 9.4, in the documentation of the R package modernGLMM."""
    block, a, b, y = np.array(published.STROUP).T
    cell = (3 * (a - 1) + b - 1).astype(int)
    factors = {"block": block, "block x a": 10 * block + a, "block x b": 10 * block + b}
    fit = MixedModel(np.eye(9)[cell], factors).fit(y)
    assert fit.singular == ("block x a",)
    cells_ = np.eye(9).reshape(3, 3, 9)
    rows, columns = cells_.mean(axis=1), cells_.mean(axis=0)
    both = [cells_[i, j] - cells_[0, j] - cells_[i, 0] + cells_[0, 0] for i in (1, 2) for j in (1, 2)]
    printed = [(4.7148, 6.2595, 0.0563709), (17.2391, 9.2097, 0.0007702), (3.0580, 11.3911, 0.0619877)]
    for tested, expected in zip((rows[1:] - rows[0], columns[1:] - columns[0], both), printed, strict=True):
        found = f_test(fit, tested)
        assert all(map(close, (found.statistic, found.df[1], found.p), expected))


def test_a_covariate_as_pbkrtest_computes_it():
    """KRmodcomp of y ~ x + (1 | g) on constructed data, to the digits of a port of it to R."""
    i = np.arange(30)
    x = np.sin(1.3 * i) + 0.1 * i
    y = 2 + 0.5 * x + np.array([-0.6, 0.3, 0.9, -0.2, 0.4, -0.8])[i // 5] + 0.5 * np.sin(2.9 * i + 0.4)
    fit = MixedModel(np.stack([np.ones(30), x], axis=1), {"g": i // 5}).fit(y)
    found = f_test(fit, [[0, 1]])
    assert found.statistic == pytest.approx(18.458409881288013, rel=1e-6)
    assert found.df == pytest.approx((1, 27.367979299962421), rel=1e-6)
    assert found.p == pytest.approx(0.000196579091261638, rel=1e-5)


def lacking(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which a method lacks a seed, another a block, and a third one adapter that serves all."""
    gone = (table["method"] == "VeRA") & (table["seed"] == 3)
    gone |= (table["method"] == "IA3") & (table["language"] == "sw") & (table["tl_ratio"] == 0.1)
    gone |= (table["method"] == "DoRA") & (table["seed"] == 2) & (table["tl_ratio"] == 0)
    return table[~gone]


def test_crossed_effects_as_statsmodels_fits_them():
    """Where its optimiser does not stop at a boundary."""
    table = lacking(designs.table(METHODS, interaction_sd=1.5, seed_sd=1.0, at=4))
    noise = np.random.default_rng(7).normal(0, 0.015, table["adapter"].nunique())
    table = table.assign(f1=table["f1"] + noise[pd.factorize(table["adapter"])[0]])
    seeds = np.random.default_rng(8).normal(0, 0.01, 40)
    table["f1"] += seeds[pd.factorize(table["tl_ratio"].astype(str) + table["seed"].astype(str))[0]]
    scores = cells(table, "tl").scores
    fit = MethodModel(scores, LIKE_THESE).model.fit(scores["value"])
    frame = scores.assign(
        one=1,
        cell=scores["method"] + scores["part"],
        within=scores["block"] + scores["seed"].astype(str),
        unit=scores["method"] + scores["adapter"],
    )
    parts = {"a": "0 + C(part)", "b": "0 + C(cell)", "c": "0 + C(within)", "d": "0 + C(unit)"}
    other = smf.mixedlm("value ~ 0 + method", frame, groups="one", vc_formula=parts, re_formula="0").fit(reml=True)
    assert fit.singular == ()
    assert fit.log_likelihood == pytest.approx(other.llf, abs=1e-5)
    assert fit.effects == pytest.approx(other.fe_params.to_numpy(), abs=1e-3)
    found = [fit.variances[name] for name in (BLOCK, INTERACTION, SEED, ADAPTER)]
    assert found == pytest.approx(list(other.vcomp), rel=2e-2)
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx(other.bse_fe.to_numpy(), rel=1e-2)


BALANCED = designs.table(METHODS, ratios=(0.01, 0.1, 0.5), interaction_sd=1.5)


def test_on_blocks_like_these_a_balanced_design_has_the_f_of_cell_means():
    """It is method against method x block exactly, where that is larger than the error of the seeds."""
    found = find(mixed_model(BALANCED, outcome="tl"), test=F_TESTS[LIKE_THESE])[0]
    expected = find(blocked(BALANCED, outcome="tl"), test=F_TEST)[0]
    assert found.df == pytest.approx(expected.df)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-4)
    assert found.p == pytest.approx(expected.p, rel=1e-3)


@pytest.mark.parametrize("seeds", [0.0, 3.0])
def test_on_these_blocks_a_balanced_design_has_the_f_of_runs_within_cells(seeds):
    """The error is method x seed within blocks; a variance of seeds of zero is pooled with it, but not its df."""
    scores = cells(BALANCED, "tl").scores
    key = [scores["part"], scores["seed"]]
    values = scores["value"] - scores.groupby(key)["value"].transform("mean") + seeds * scores["seed"]
    found = MethodModel(scores, THESE).compare(values)
    assert found.fit.singular == (() if seeds else (SEED,))
    cell = [scores["part"], scores["method"]]
    rest = values - seeds * scores["seed"]
    rest = rest - rest.groupby(cell).transform("mean")
    df = 9 * 2 * 3
    error = np.sum(rest**2) / (df if seeds else 9 * 2 * 4)
    assert found.test.df == pytest.approx((3, df))
    assert found.test.statistic == pytest.approx(27 * values.groupby(scores["method"]).mean().var() / error, rel=1e-4)


def test_the_differences_are_those_of_the_primary_analysis():
    """On these blocks, with adapters that serve several languages and with all cells and seeds."""
    table = designs.table(METHODS)
    found = {r.groups: r for r in find(mixed_model(table, outcome="tl"), test=PAIR_TESTS[THESE])}
    for record in find(differences(table, outcome="tl"), test=PAIR_TESTS[THESE]):
        assert found[record.groups].effect == pytest.approx(record.effect)


def test_an_adapter_that_serves_several_languages_is_one_draw():
    """Ratio 0 alone: a method's mean over languages has the error of its adapters, as in the primary analysis."""
    rng = np.random.default_rng(3)
    table = designs.table(METHODS, ratios=(0.0,), seeds=range(1, 9), seed_sd=0.01)
    luck = rng.normal(0, 0.02, table["adapter"].nunique())
    table = table.assign(f1=table["f1"] + luck[pd.factorize(table["adapter"])[0]])
    table_cells = cells(table, "tl")
    found = MethodModel(table_cells.scores, THESE).compare(table_cells.scores["value"])
    assert found.fit.variances[ADAPTER] > 100 * found.fit.variances[RESIDUAL]
    primary = compare(table_cells, THESE)
    assert np.median(found.comparison.errors.error / primary.errors.error) == pytest.approx(1, abs=0.15)
    assert (
        found.comparison.errors.df == pytest.approx(np.full(6, 28), rel=0.02) or found.comparison.errors.df.max() < 33
    )


def test_a_missing_seed_is_adjusted_for():
    """With a large effect of seeds, a method that lacks the hard one is compared as if it had it."""
    table = designs.table(METHODS, ratios=(0.01, 0.1))
    table = table.assign(f1=table["f1"] - 0.06 * (table["seed"] == 3))
    table = table[(table["method"] != "DoRA") | (table["seed"] != 3)]
    for scope in SCOPES:
        pairs = {r.groups: r for r in find(mixed_model(table, outcome="tl"), test=PAIR_TESTS[scope])}
        assert abs(pairs["DoRA", "LoRA"].effect) < 1.0
        assert pairs["DoRA", "LoRA"].p_adjusted > 0.2


def test_missing_cells():
    """A pair is compared on the blocks that both have; F on those that all have."""
    table = lacking(designs.table({**METHODS, "OFT": 0}))
    apart = table[(table["method"] != "OFT") | ((table["language"] == "sw") & (table["tl_ratio"] == 0.1))]
    records = mixed_model(apart, outcome="tl")
    pairs = {r.groups: r for r in find(records, test=PAIR_TESTS[THESE])}
    assert pairs["IA3", "OFT"].p is None
    assert "share no block" in pairs["IA3", "OFT"].note
    assert pairs["LoRA", "OFT"].n == 1
    assert pairs["DoRA", "LoRA"].n == 12
    assert "no block has all methods" in find(records, test=F_TESTS[THESE])[0].note
    assert find(records, test=F_TESTS[LIKE_THESE])[0].p is not None
    assert {r.groups: r for r in find(records, test=PAIR_TESTS[LIKE_THESE])}["IA3", "OFT"].p is not None


def test_what_a_design_cannot_separate_is_named():
    table = BALANCED[BALANCED["seed"] == 1]
    fit = MethodModel(scores := cells(table, "tl").scores, LIKE_THESE).compare(scores["value"]).fit
    assert fit.confounded == (INTERACTION, ADAPTER)
    notes = [r.note for r in mixed_model(table, outcome="tl") if "does not separate" in r.note]
    assert notes
    assert all(f"{INTERACTION}, {ADAPTER}" in note for note in notes)


def test_all_pairs_at_once_are_tukeys_in_a_balanced_design():
    covariance = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1.0]])
    covariance = covariance @ covariance.T
    for df in (6.0, 30.0):
        critical = stats.t.isf(np.quantile(least_p(covariance, np.full(3, df)), 0.05) / 2, df)
        assert critical == pytest.approx(range_quantile(0.95, 3, df) / np.sqrt(2), rel=0.02)


def test_fixed_effects_that_cannot_be_estimated_are_refused():
    with pytest.raises(NotTestable, match="cannot be estimated separately"):
        MixedModel(np.ones((6, 2)), {})
    with pytest.raises(NotTestable, match="no degrees of freedom"):
        MixedModel(np.eye(4), {})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("error")
def test_any_incomplete_design_gives_intervals_or_reasons(seed):
    """Scores missing at random, up to most of them, and runs done twice."""
    rng = np.random.default_rng(seed)
    languages, ratios = ("ur", "sw", "hi")[: 1 + seed % 3], ((0.0,), (0.0, 0.1), (0.1, 0.5), (0.0, 0.01, 0.5))[seed % 4]
    table = designs.table(METHODS, languages=languages, ratios=ratios, seeds=range(1 + seed % 5), outcomes=("tl",))
    table = table[rng.random(len(table)) > (0.1, 0.4, 0.7)[seed % 3]]
    again = table.sample(frac=0.3, random_state=seed)
    table = pd.concat([table, again.assign(adapter=again["adapter"] + " again", f1=again["f1"] + 0.01)])
    records = mixed_model(table, outcome="tl")
    assert len(find(records, test=F_TESTS[THESE]) + find(records, test=F_TESTS[LIKE_THESE])) == 2
    for record in records:
        if record.note.startswith("no test: "):
            assert record.p is None
        elif record.test in PAIR_TESTS.values():
            assert record.df[0] > 0.999
            excluded = record.interval[0] > 0 or record.interval[1] < 0
            assert excluded == (record.p_adjusted < 0.05) or record.p_adjusted == pytest.approx(0.05, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ratio 0 alone", "a missing seed, seed effect of SD 2", "no shared adapters"])
def test_false_alarms_keep_to_their_level(name):
    """Shares of 200 draws; `python -m benchmarks.simulated.false_alarms --only mixed` draws more, in all designs."""
    for share in simulate(name, NULLS[name], mixed, 200, 1).values():
        assert share == pytest.approx(0.05, abs=0.05)
