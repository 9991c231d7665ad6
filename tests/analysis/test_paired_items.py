"""Per-item tests: what they agree with, and that they do not take repeated answers for new items."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.records import find
from analysis.stats.multiplicity import holm
from analysis.stats.paired import bootstrap, clustered_mcnemar, collect, paired
from analysis.stats.power import detectable_item_difference, item_power


def test_two_methods_on_one_cell_are_mcnemars_table():
    items = designs.items({"A": 0.8, "B": 0.6})
    found = find(paired(items, outcome="tl", draws=500), test="McNemar")[0]
    wide = items.pivot(index="id", columns="method", values="correct")
    b, c = int(((wide["A"] == 1) & (wide["B"] == 0)).sum()), int(((wide["A"] == 0) & (wide["B"] == 1)).sum())
    assert found.statistic == pytest.approx((abs(b - c) - 1) ** 2 / (b + c))
    assert found.effect == pytest.approx(100 * (b - c) / len(wide))
    assert found.n == len(wide)


def test_few_discordant_answers_are_tested_exactly():
    from scipy.stats import binomtest

    items = designs.items({"A": 0.8, "B": 0.8}, n=40)
    items["correct"] = [1.0] * 40 + [0.0] * 6 + [1.0] * 34
    found = find(paired(items, outcome="tl", draws=500), test="McNemar")[0]
    assert found.p == pytest.approx(binomtest(6, 6).pvalue)
    assert found.df is None


def test_the_same_answers_again_are_no_new_evidence():
    """Three copies of every answer, as of three equal seeds, must leave p as it was."""
    rng = np.random.default_rng(0)
    d, items = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.75, 0.15], size=300), np.arange(300)
    once, thrice = clustered_mcnemar(d, items), clustered_mcnemar(np.tile(d, 3), np.tile(items, 3))
    assert (thrice.statistic, thrice.n) == (pytest.approx(once.statistic), once.n)
    x = (d > 0).astype(float)
    y = (d < 0).astype(float)
    draws = [bootstrap(np.tile(x, k), np.tile(y, k), np.tile(items, k)) for k in (1, 3)]
    assert draws[0].interval == pytest.approx(draws[1].interval)
    assert draws[0].p == draws[1].p


def test_translations_of_a_sentence_are_one_item():
    """In a parallel test set an id is the same sentence in every language."""
    one = designs.items({"A": 0.8, "B": 0.6})
    three = pd.concat([one.assign(language=language) for language in ("sw", "hi", "tr")])
    alone, pooled = (find(paired(items, outcome="tl", draws=500), test="paired bootstrap")[0] for items in (one, three))
    assert pooled.n == alone.n == one["id"].nunique()
    assert pooled.interval == pytest.approx(alone.interval)


def test_the_bootstrap_agrees_with_the_normal_theory_of_many_items():
    rng = np.random.default_rng(1)
    x, y = rng.random(2000) < 0.75, rng.random(2000) < 0.70
    found = bootstrap(x, y, np.arange(2000))
    d = x.astype(float) - y
    error = 100 * d.std() / np.sqrt(2000)
    assert found.effect == pytest.approx(100 * d.mean())
    assert found.interval == pytest.approx(
        (100 * d.mean() - 1.96 * error, 100 * d.mean() + 1.96 * error), abs=0.1 * error
    )


def test_scores_in_parts_have_no_mcnemar_but_a_bootstrap():
    items = designs.items({"A": 0.8, "B": 0.6})
    items["correct"] *= np.random.default_rng(0).random(len(items))
    found = paired(items, outcome="tl", draws=500)
    assert "scored in parts" in find(found, test="McNemar")[0].note
    assert find(found, test="paired bootstrap")[0].p is not None


def test_only_answers_that_both_gave_are_compared():
    items = designs.items({"A": 0.8, "B": 0.6}, seeds=(1, 2))
    fewer = items[~((items["method"] == "B") & (items["seed"] == 2))]
    assert collect(fewer, "tl").scores.shape == (800, 2)
    expected = paired(items[items["seed"] == 1], outcome="tl", draws=500)
    assert paired(fewer, outcome="tl", draws=500) == expected


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (designs.items({"A": 0.8}), "one method only"),
        (designs.items({"A": 0.8}).iloc[:0], "no predictions"),
        (designs.items({"A": 1.5, "B": 1.5}), "the same"),
        (pd.concat([designs.items({"A": 0.8}), designs.items({"B": 0.8}).assign(seed=9)]), "no item in common"),
    ],
)
def test_what_cannot_be_compared_is_said(items, says):
    found = paired(items, outcome="tl", draws=200)
    assert len(found) == 2
    assert all(record.p is None and says in record.note for record in found)


def test_holm_over_the_pairs():
    found = find(paired(designs.items({"A": 0.8, "B": 0.75, "C": 0.6}), outcome="tl", draws=500), test="McNemar")
    p = sorted(record.p for record in found)
    assert min(record.p_adjusted for record in found) == pytest.approx(3 * p[0])
    assert all(record.correction == "holm" for record in found)


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = rng.random(n) ** 3
        p[n // 2 :] = np.round(p[n // 2 :], 1)  # with ties and zeros
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_order_of_the_items_changes_nothing():
    items = designs.items({"A": 0.8, "B": 0.75, "C": 0.6}, seeds=(1, 2))
    assert paired(items, outcome="tl", draws=500) == paired(
        items.sample(frac=1, random_state=0), outcome="tl", draws=500
    )


def test_the_least_difference_on_items_takes_the_discordance_that_there_is():
    items = designs.items({"A": 0.8, "B": 0.7})
    (found,) = item_power(items, outcome="tl")
    wide = items.pivot(index="id", columns="method", values="correct")
    assert found.statistic == pytest.approx((wide["A"] != wide["B"]).mean())
    assert found.effect == pytest.approx(100 * detectable_item_difference(items=400, discordance=found.statistic))
