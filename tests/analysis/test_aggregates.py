"""Interquartile means, probabilities of improvement, performance profiles, and collapsed runs.

The references are the output of rliable 1.2.0 (Agarwal et al. 2021) for the scores below: 5 runs of 4 tasks.
"""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.plots.profiles import performance_profiles
from analysis.plots.style import method_styles
from analysis.records import find
from analysis.robustness.aggregates import (
    IMPROVEMENT,
    IQM,
    PLAIN,
    Strata,
    aggregates,
    interquartile_mean,
    probability_of_improvement,
    profile,
    strata,
)
from analysis.robustness.collapse import RUN, SHARE, collapse_records, collapsed

X = np.array(
    [
        [58.26, 57.49, 54.07, 55.82, 54.56],
        [53.6, 56.65, 56.58, 51.05, 54.48],
        [57.65, 59.3, 59.16, 57.5, 58.63],
        [60.53, 59.64, 58.64, 61.13, 60.92],
    ]
)
Y = np.array(
    [
        [57.49, 53.08, 54.96, 52.86, 57.38],
        [55.13, 53.13, 52.86, 50.76, 54.91],
        [54.16, 54.87, 55.35, 57.9, 53.45],
        [58.66, 59.21, 58.38, 56.95, 20.0],
    ]
)


def runs_of(values: np.ndarray) -> Strata:
    return Strata(values.ravel(), np.full(len(values), values.shape[1]))


def table_of(**methods: np.ndarray) -> pd.DataFrame:
    """Return a table whose blocks are the tasks."""
    rows = [
        {"method": name, "language": f"l{task}", "tl_ratio": 0.5, "seed": seed, "outcome": "tl", "f1": value / 100}
        for name, values in methods.items()
        for (task, seed), value in np.ndenumerate(values)
    ]
    return pd.DataFrame(rows).assign(variant="lora")


def test_point_estimates_are_those_of_rliable():
    assert interquartile_mean(X.ravel()) == pytest.approx(57.638)
    assert interquartile_mean(Y.ravel()) == pytest.approx(55.029)
    assert probability_of_improvement(runs_of(X), runs_of(Y)) == pytest.approx(0.795)
    found = profile(runs_of(X), [50.0, 58, 60, 62, 64])
    assert found.share == pytest.approx([1, 0.45, 0.15, 0, 0])


def test_intervals_are_those_of_rliable_but_for_the_draws():
    records = aggregates(table_of(x=X, y=Y), outcome="tl", draws=20_000)
    by_method = {r.groups[0]: r for r in find(records, test=IQM)}
    assert by_method["x"].effect == pytest.approx(57.638)
    assert by_method["x"].interval == pytest.approx((56.798, 58.161), abs=0.05)
    assert by_method["y"].interval == pytest.approx((53.841, 56.23), abs=0.05)
    improvement = find(records, test=IMPROVEMENT)[0]
    assert improvement.effect == pytest.approx(0.795)
    assert improvement.interval == pytest.approx((0.64, 0.92), abs=0.011)
    band = profile(runs_of(X), [50.0, 58, 60, 62, 64], draws=20_000)
    assert band.low == pytest.approx([1, 0.3, 0.05, 0, 0], abs=1e-9)
    assert band.high == pytest.approx([1, 0.6, 0.25, 0, 0], abs=1e-9)


def test_one_bad_run_moves_the_mean_and_not_the_interquartile_mean():
    bad = Y.copy()
    bad[3, 4] = 0.0
    by_test = [
        {test: find(aggregates(table_of(y=y), outcome="tl"), test=test)[0].effect for test in (IQM, PLAIN)}
        for y in (Y, bad)
    ]
    assert by_test[0][IQM] == by_test[1][IQM]
    assert by_test[0][PLAIN] - by_test[1][PLAIN] == pytest.approx(1.0)


def test_unequal_seeds_are_drawn_within_their_block():
    runs = Strata(np.array([1.0, 2.0, 3.0, 10.0]), np.array([3, 1]))
    drawn = runs.values[runs.draw(200, np.random.default_rng(0))]
    assert set(drawn[:, :3].ravel()) == {1.0, 2.0, 3.0}
    assert set(drawn[:, 3]) == {10.0}
    other = Strata(np.array([2.0, 2.0, 10.0, 11.0]), np.array([2, 2]))
    assert probability_of_improvement(runs, other) == pytest.approx((0.5 + 0.25) / 2)


def test_blocks_that_lack_a_method_are_left_out_and_named():
    table = table_of(x=X, y=Y, z=Y)
    part = table[~((table["method"] == "y") & (table["language"] == "l3"))]
    found, note = strata(part, "tl")
    assert found["x"].sizes.tolist() == [5, 5, 5]
    assert note == "; without blocks that lack a method: l3"


def test_one_run_a_cell_has_no_intervals():
    records = aggregates(table_of(x=X[:, :1], y=Y[:, :1]), outcome="tl")
    assert [r.note for r in records] == ["no test: no method has two seeds in a block"]
    assert aggregates(table_of(x=X).iloc[:0], outcome="tl")[0].note == "no test: there are no runs"


def test_profiles_are_drawn_for_several_methods():
    table = table_of(x=X, y=Y)
    plot = performance_profiles(table, "tl", marks=method_styles(["x", "y"]), name="profile-tl", prefix="")
    assert plot is not None
    assert plot.svg.startswith("<svg")
    assert performance_profiles(table, "en", marks={}, name="p", prefix="") is None
    assert performance_profiles(table_of(x=X), "tl", marks=method_styles(["x"]), name="p", prefix="") is None


def test_a_run_has_collapsed_within_the_interval_of_its_floor():
    """Wilson's upper end for 1/3 of 600 is .3720 (Wilson 1927; Newcombe 1998, method 3)."""
    table = designs.table({"A": 0.0}, languages=("sw",), ratios=(0.5,), outcomes=("tl",))
    scores = [0.30, 0.371, 0.373]
    table = table.assign(f1=scores, run_id=["a", "b", "c"], test_size=600.0)
    table["floor/tl/majority"], table["floor/tl/overlap"] = 0.2, 1 / 3
    found = collapsed(table, "tl", {})
    assert found["limit"].tolist() == pytest.approx([37.20] * 3, abs=0.01)
    assert found["collapsed"].tolist() == [True, True, False]
    share = find(collapse_records(table, table.iloc[:0], outcome="tl"), test=SHARE)[0]
    assert (share.groups, share.statistic, share.n) == (("A",), 2, 3)
    assert share.effect == pytest.approx(200 / 3)
    runs = find(collapse_records(table, table.iloc[:0], outcome="tl"), test=RUN)
    assert [r.groups for r in runs] == [("A seed 1",), ("A seed 2",)]


def test_the_number_of_answers_counts_before_the_option_and_the_base_model_after_the_floors():
    table = designs.table({"A": 0.0}, languages=("sw",), ratios=(0.5,), outcomes=("tl",))
    table = table.assign(f1=0.45, run_id=["a", "b", "c"], test_size=np.nan, base_f1=0.4)
    items = pd.DataFrame({"run_id": ["a"] * 50 + ["b"] * 5000, "outcome": "tl"})
    found = find(collapse_records(table, items, outcome="tl"), test=SHARE)[0]
    assert (found.statistic, found.n) == (1, 2)  # the third has no known number of items
    table["floor/tl/overlap"] = [0.1, 0.44, 0.1]
    assert collapsed(table, "tl", {"a": 50, "b": 5000})["collapsed"].tolist() == [False, True]
    nothing = collapse_records(table.drop(columns=["base_f1", "floor/tl/overlap"]), items, outcome="tl")
    assert nothing[0].note.startswith("no test: ")
