"""Adapters and items are both chance: variance components, the two-way bootstrap, and what the report makes of them."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.records import NotTestable, find
from analysis.robustness.item_scores import Paired, arrange_items, pair_items
from analysis.robustness.two_way import (
    BOOTSTRAP,
    OTHER_ITEMS,
    SOURCES,
    components,
    other_items,
    standard_error,
    two_way_bootstrap,
)
from analysis.stats.differences import differences, pair_tests
from benchmarks.simulated.coverage import DESIGNS, simulate


def predictions(table: pd.DataFrame, *, n: int = 60, item_sd: float = 0.5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with run ids and with F1 from the predictions, and these: items that some methods find hard."""
    rng = np.random.default_rng(3)
    table = table.assign(run_id=[f"run {i}" for i in range(len(table))])
    hard = {method: rng.normal(0, item_sd, n) for method in sorted(set(table["method"]))}
    parts, f1 = [], []
    for row in table.to_dict("records"):
        right = (rng.normal(2 * row["f1"] - 1, 1, n) + hard[row["method"]] > 0).astype(np.float32)
        f1.append(right.mean(dtype=float))
        names = {key: row[key] for key in ("run_id", "outcome", "task")}
        parts.append(pd.DataFrame({**names, "id": [f"item {i}" for i in range(n)], "correct": right}))
    return table.assign(f1=f1), pd.concat(parts, ignore_index=True)


def one_block(values: np.ndarray) -> Paired:
    """Return differences of (seeds, items) in one block."""
    seeds, n = values.shape
    means = values.mean(axis=1)
    contributions = ((values - means[:, None]) / n).astype(np.float32)
    return Paired(means, contributions, np.full(seeds, 1 / seeds), np.zeros(seeds, dtype=np.int64))


TABLE, ITEMS = predictions(designs.table({"A": 3.0, "B": 0.0, "C": 0.0}, languages=("ur", "sw"), ratios=(0.0, 0.5)))


def test_the_components_are_those_of_the_analysis_of_variance():
    """Brennan (2001), section 3.2: sigma2(a) = (MS(a) - MS(ai)) / n(i), sigma2(i) = (MS(i) - MS(ai)) / n(a)."""
    rng = np.random.default_rng(11)
    seeds, n = 4, 30
    values = 5 * rng.normal(size=(seeds, 1)) + 8 * rng.normal(size=n) + 6 * rng.normal(size=(seeds, n))
    frame = pd.DataFrame({"y": values.ravel(), "a": np.repeat(range(seeds), n), "i": np.tile(range(n), seeds)})
    squares = anova_lm(ols("y ~ 0 + C(a) + C(i)", frame).fit(), typ=2)
    mean_square = squares["sum_sq"] / squares["df"]
    ms_a = n * values.mean(axis=1).var(ddof=1)
    ms_i, ms_ai = seeds * values.mean(axis=0).var(ddof=1), mean_square["Residual"]
    found = components(one_block(values))
    assert found.adapters == pytest.approx((ms_a - ms_ai) / n / seeds, rel=1e-4)
    assert found.items == pytest.approx((ms_i - ms_ai) / seeds / n, rel=1e-4)
    assert found.both == pytest.approx(ms_ai / seeds / n, rel=1e-4)
    assert found.between == pytest.approx(ms_a / n / seeds, rel=1e-4)
    assert found.df == seeds - 1


def test_the_draws_count_the_interaction_three_times_and_the_error_once():
    """Owen (2007), theorem 3: the pigeonhole bootstrap's variance has the interaction thrice."""
    values = np.random.default_rng(5).normal(size=(5, 400))
    paired = one_block(values)
    found = components(paired)
    draws = two_way_bootstrap(paired, 20_000)
    assert draws.mean() == pytest.approx(values.mean(), abs=4 * draws.std() / np.sqrt(20_000))
    assert draws.var() == pytest.approx(found.between + found.items + 2 * found.both, rel=0.04)
    assert found.both > 0.5 * draws.var() / 3
    assert standard_error(found, draws) == pytest.approx(np.sqrt(found.total), rel=0.06)


def test_a_single_seed_in_a_block_has_the_variance_of_the_others():
    rng = np.random.default_rng(8)
    means = np.array([1.0, 3.0, 5.0, 7.0])
    noise = rng.normal(size=(4, 50)).astype(np.float32) / 50
    paired = Paired(
        means,
        noise - noise.mean(axis=1, keepdims=True),
        np.array([0.5, 0.5 / 3, 0.5 / 3, 0.5 / 3]),
        np.array([0, 1, 1, 1]),
    )
    found = components(paired)
    assert found.between == pytest.approx((4 + 4 / 3) / 4)
    assert found.surplus == pytest.approx(1.0)
    assert standard_error(found, two_way_bootstrap(paired, 4000)) == pytest.approx(np.sqrt(found.total), rel=0.05)


def test_the_difference_is_that_of_the_primary_analysis_also_where_adapters_are_shared():
    by_pair = {r.groups: r for r in pair_tests(differences(TABLE, outcome="tl"))}
    data = arrange_items(TABLE, ITEMS, "tl")
    assert len(data.blocks) == 3 * 3  # both languages of an adapter at ratio 0 are one block
    assert len(data.units) == 4 * 3
    for (a, b), record in by_pair.items():
        paired = pair_items(data, data.methods.index(a), data.methods.index(b))
        assert paired.weights @ paired.means == pytest.approx(record.effect, abs=1e-4)
        # `these` on one's own errors is the variance between units.
        assert paired.contributions.sum(axis=1) == pytest.approx(0, abs=1e-4)


def test_a_method_that_lacks_a_seed_and_items_is_compared_on_the_others():
    part = TABLE[~((TABLE["method"] == "A") & (TABLE["seed"] == 3))]
    fewer = ITEMS[~((ITEMS["id"] == "item 7") & (ITEMS["run_id"].isin(part.loc[part["method"] == "B", "run_id"])))]
    data = arrange_items(part, fewer, "tl")
    paired = pair_items(data, 0, 1)
    assert len(paired.means) == 3 * 2
    assert paired.contributions.shape[1] == 59
    assert paired.weights.sum() == pytest.approx(1)


def test_intervals_for_other_items_are_wider_and_shares_add_up():
    records = other_items(TABLE, ITEMS, outcome="tl", scope="these")
    primary = {r.groups: r for r in pair_tests(differences(TABLE, outcome="tl"))}
    wider = find(records, test=OTHER_ITEMS)
    assert len(wider) == len(find(records, test=BOOTSTRAP)) == 3
    for record in wider:
        before = primary[record.groups]
        assert record.interval[0] <= before.interval[0] < before.interval[1] <= record.interval[1]
        assert record.p >= before.p
    every = [r for r in records if r.test in SOURCES and len(r.groups) == 3]
    assert sum(r.effect for r in every) == pytest.approx(100)


def test_the_interval_of_the_bootstrap_follows_from_its_error():
    record = find(other_items(TABLE, ITEMS, outcome="tl", scope="these"), test=BOOTSTRAP)[0]
    error = record.effect / record.statistic
    half = stats.t.isf(0.025, *record.df) * error
    assert record.interval == pytest.approx((record.effect - half, record.effect + half))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, i: (t, i.iloc[:0]), "there are no predictions"),
        (lambda t, i: (t[t["seed"] == 1], i), "there is one seed only"),
        (lambda t, i: (t[t["method"] == "A"], i), "there is one method only"),
        (lambda t, i: (t, i[i["id"] == "item 1"]), "there is one item only"),
        (lambda t, i: (t.assign(seed=t["seed"] + 10 * t["method"].map(ord)), i), "share no block and seed"),
    ],
)
def test_a_design_that_is_too_small_gets_the_reason(change, reason):
    records = other_items(*change(TABLE, ITEMS), outcome="tl", scope="these")
    assert records
    assert all(r.effect is None and reason in r.note for r in records)


def test_equal_answers_are_not_tested():
    values = np.zeros((3, 10))
    with pytest.raises(NotTestable, match="the same for all adapters and items"):
        components(one_block(values))


def test_an_error_of_zero_is_not_tested():
    """A has half of the items right in each run, in the one second seed the other half; B has none."""
    table = designs.table({"A": 0, "B": 0, "C": 0}, languages=("hi", "ky", "sw", "ur"), ratios=(0.5,), seeds=(1, 2))
    table = table[(table["seed"] == 1) | (table["language"] == "hi")].reset_index(drop=True)
    table, items = predictions(table, n=4)
    half = {1: [1.0, 1.0, 0.0, 0.0], 2: [0.0, 0.0, 1.0, 1.0]}
    for row in table.itertuples():
        if row.method != "C":
            right = np.array(half[row.seed]) * (row.method == "A")
            items.loc[items["run_id"].eq(row.run_id) & items["outcome"].eq(row.outcome), "correct"] = right
    records = find(other_items(table, items, outcome="tl", scope="these"), test=BOOTSTRAP, groups=("A", "B"))
    assert [record.note for record in records] == [
        "no test: all adapters have the same mean difference, and the draws vary no more than by chance"
    ]


@pytest.mark.slow
def test_seeds_that_differ_in_which_items_they_get_right_but_not_in_how_many_are_not_tested():
    """A small test set: the error would be zero."""
    values = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    with pytest.raises(NotTestable, match="the same mean difference"):
        components(one_block(values))
    table, items = predictions(designs.table({"A": 0.0, "B": 0.0}, languages=("sw",), ratios=(0.5,)), n=4)
    items["correct"] = [float(i == k % 4) for k in range(len(table)) for i in range(4)]
    records = other_items(table.assign(f1=0.25), items, outcome="tl", scope="these")
    assert all("no test" in r.note for r in records if r.test == BOOTSTRAP)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """The bounds are three standard errors of 300 draws; plain intervals for these items cover far less."""
    found = simulate(DESIGNS["the same, methods differ on items more"], 300)
    assert found["two-way"] == pytest.approx(0.95, abs=0.03)
    assert found["others"] == pytest.approx(0.95, abs=0.04)
    assert found["these"] < 0.3
    found = simulate(DESIGNS["the same, items add nothing"], 300)
    assert found["two-way"] == pytest.approx(0.95, abs=0.03)
    assert found["others"] == pytest.approx(0.95, abs=0.04)
    assert found["items"] < 0.6
