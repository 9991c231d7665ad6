"""Correlations of many layers with F1: the published formulas, the false alarms, and what is subtracted."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.measures.layer_shares import (
    ALL_LANGUAGES,
    CRITICAL,
    PEARSON,
    SPEARMAN,
    WITHIN_RATIOS,
    correlation_records,
)
from analysis.naming import Names
from analysis.records import NotTestable, dumps, find, is_significant
from analysis.runs.language_probes import SHARES, share_column
from analysis.stats.correlations import correlation_map, rank_within_groups
from analysis.tables.layers import sentences

ONE = ["sw"] * 20
METHODS = {"LoRA": 0.0, "VeRA": 0.0, "PiSSA": 0.0}


def drawn(n: int, k: int, at: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return shares (n, k) whose neighbours are alike, and F1 (n,) that has nothing to do with them."""
    rng = np.random.default_rng(at)
    return np.cumsum(rng.normal(size=(n, k)), axis=1) + rng.normal(size=(n, 1)), rng.normal(size=n)


def test_a_layer_has_the_correlation_of_scipy():
    x, y = drawn(20, 6)
    y = y + x[:, 3]
    for result, layer in zip(correlation_map(x, y, ONE).results, x.T, strict=True):
        want = stats.pearsonr(layer, y)
        assert (result.effect, result.p) == (pytest.approx(want.statistic), pytest.approx(want.pvalue))
        assert result.interval == pytest.approx(tuple(want.confidence_interval()))
    by_rank = correlation_map(rank_within_groups(x, ONE), rank_within_groups(y[:, None], ONE)[:, 0], ONE)
    for result, layer in zip(by_rank.results, x.T, strict=True):
        want = stats.spearmanr(layer, y)
        assert (result.effect, result.p) == (pytest.approx(want.statistic), pytest.approx(want.pvalue))


def test_the_adjusted_p_is_that_of_every_permutation():
    """Eight runs can be ordered in 40,320 ways, which scipy goes through."""
    x, y = drawn(8, 5, at=3)
    y = y + 0.3 * x[:, 4]
    unit = (x - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0), axis=0)

    def greatest(values: np.ndarray, axis: int) -> np.ndarray:
        left = values - values.mean(axis=-1, keepdims=True)
        return np.abs(left @ unit).max(axis=-1) / np.linalg.norm(left, axis=-1)

    exact = stats.permutation_test(
        (y,), greatest, permutation_type="pairings", vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    found = correlation_map(x, y, ["sw"] * 8)
    for result, p in zip(found.results, found.p_adjusted, strict=True):
        share = (exact.null_distribution >= abs(result.effect) - 1e-12).mean()
        assert p == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 9999) + 1e-4)
    assert min(found.p_adjusted) == pytest.approx(exact.pvalue, abs=0.02)


def test_what_stands_out_is_beyond_the_critical_correlation():
    x, y = drawn(20, 40, at=2)
    y = y + 0.35 * x[:, 30]
    found = correlation_map(x, y, ONE)
    beyond = [abs(result.effect) > found.critical for result in found.results]
    assert beyond == [p < 0.05 for p in found.p_adjusted]
    assert any(beyond)
    assert not all(beyond)


def test_chance_stands_out_in_one_panel_of_twenty_and_without_adjustment_in_many():
    found = [correlation_map(*drawn(18, 64, at=at), ["sw"] * 18, draws=199) for at in range(150)]
    alarms = sum(min(one.p_adjusted) < 0.05 for one in found)
    low, high = stats.binomtest(alarms, len(found)).proportion_ci(0.999)
    assert low < 0.05 < high
    assert np.mean([min(result.p for result in one.results) < 0.05 for one in found]) > 0.25


def test_too_few_runs_and_what_does_not_vary_are_not_tested():
    x, y = drawn(8, 3)
    with pytest.raises(NotTestable, match="there are 7 runs, and at least 8 are needed"):
        correlation_map(x[:7], y[:7], ["sw"] * 7)
    with pytest.raises(NotTestable, match="there are 8 runs in 2 groups, and at least 9 are needed"):
        correlation_map(x, y, ["sw"] * 4 + ["ur"] * 4)
    with pytest.raises(NotTestable, match="F1 does not vary"):
        correlation_map(x, np.full(8, 0.3), ["sw"] * 8)
    with pytest.raises(NotTestable, match="no share varies"):
        correlation_map(np.full((8, 2), 0.1), y, ["sw"] * 8)
    x[:, 1], x[2, 2] = 0.1, np.nan
    found = correlation_map(x, y, ["sw"] * 8)
    assert [result is None for result in found.results] == [False, True, True]
    assert np.isnan(found.p_adjusted[1:]).all()
    assert found.tests == 1


def table(**slopes: float) -> pd.DataFrame:
    """Return runs with four layers; slopes are by "language_share_layer" ("any" for all), and F1's own by "ratio"."""
    made = designs.table(METHODS, seed_sd=3.0, block_sd=0.0, by_ratio={0.5: 20.0 * slopes.pop("ratio", 0.0)})
    rng = np.random.default_rng(4)
    for share in SHARES:
        for layer in range(4):
            values = rng.normal(0, 0.02, len(made)) + made["language"].map({"ur": 0.5, "sw": 0.1, "hi": 0.0})
            for language in designs.LANGUAGES:
                slope = slopes.get(f"{language}_{share}_{layer}", slopes.get(f"any_{share}_{layer}", 0.0))
                values += slope * (made["f1"] - 0.6) * (made["language"] == language)
            made[share_column("token", share, layer)] = values
    return made.assign(setting="xnli, Llama-3.1-8B", variant=made["method"].str.lower())


def standing(found: list, panel: str) -> set[str]:
    return {
        r.groups[1].removeprefix("probe/token/")
        for r in find(found, test=PEARSON)
        if r.groups[0] == panel and is_significant(r)
    }


def test_a_known_correlation_is_found_where_it_is():
    found = correlation_records(table(sw_tl_3=2.0, sw_en_1=-2.0))
    assert standing(found, "sw") == {"tl_share/3", "en_share/1"}
    assert standing(found, "ur") == standing(found, "hi") == set()
    (record,) = find(found, test=PEARSON, groups=("sw", share_column("token", "tl", 3)))
    assert record.effect > 0.8
    assert (record.n, record.correction, record.outcome) == (36, "max-T", "tl")
    assert find(found, test=SPEARMAN, groups=("sw", share_column("token", "en", 1)))[0].effect < -0.7
    critical = {r.groups[0]: r for r in find(found, test=CRITICAL)}
    assert list(critical) == ["hi", "sw", "ur", ALL_LANGUAGES, WITHIN_RATIOS]
    assert 0.33 < critical["sw"].effect < 0.6  # .329 without adjustment
    assert critical[ALL_LANGUAGES].n == 108
    text = next(sentence for sentence in sentences(found, Names()) if sentence.startswith("sw, by token: "))
    assert "F1 falls with the English share after block 1 (r = -." in text
    assert "rises with the target share after block 3 (r = ." in text
    assert "n = 36 runs" in text
    assert sentences(found, Names())[0].startswith(
        "hi, by token: no significant correlation of a layer's share with F1 (n = 36 runs, "
    )


def test_languages_that_are_high_in_both_are_no_correlation():
    made = table()
    made["f1"] += made["language"].map({"ur": 0.3, "sw": 0.1, "hi": 0.0})
    found = correlation_records(made)
    assert standing(found, ALL_LANGUAGES) == set()
    (record,) = find(found, test=PEARSON, groups=(ALL_LANGUAGES, share_column("token", "tl", 0)))
    tl = made[made["outcome"] == "tl"]
    assert abs(record.effect) < 0.3 < stats.pearsonr(tl[share_column("token", "tl", 0)], tl["f1"]).statistic


def test_a_share_that_only_follows_the_ratio_does_not_stand_out_when_ratios_are_apart():
    made = table(ratio=1.0)
    made[share_column("token", "en", 2)] += 0.3 * (made["tl_ratio"] == 0.5)
    found = correlation_records(made)
    assert "en_share/2" in standing(found, "sw") & standing(found, ALL_LANGUAGES)
    assert standing(found, WITHIN_RATIOS) == set()


def test_the_order_of_runs_does_not_matter():
    made = table(any_tl_3=1.0)
    assert dumps(correlation_records(made)) == dumps(correlation_records(made.sample(frac=1, random_state=0)))


def test_without_probes_there_is_nothing_and_with_few_a_reason():
    assert correlation_records(designs.table(METHODS).assign(setting="x")) == []
    made = table()
    few = made[(made["language"] == "sw") & (made["tl_ratio"] == 0.1) & (made["seed"] < 3)]
    (record,) = correlation_records(few)
    assert record.note == "no test: there are 6 runs, and at least 8 are needed (sw, by token)"
