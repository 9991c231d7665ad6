"""Intervals of means over items: their coverage, and that they do not depend on how items are chunked."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from whichlora.probing.bootstrap import PoissonBootstrap


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(400, 2))
    bootstrap = PoissonBootstrap(2, seed=1)
    bootstrap.add(values)
    intervals = bootstrap.result()
    error = 1.96 * values.std(0) / 20
    assert intervals.mean == pytest.approx(values.mean(0))
    assert intervals.mean - intervals.low == pytest.approx(error, rel=0.15)
    assert intervals.high - intervals.mean == pytest.approx(error, rel=0.15)
    assert intervals.n.tolist() == [400, 400]


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        bootstrap = PoissonBootstrap(1, seed=seed)
        bootstrap.add(random.exponential(1, size=(80, 1)))
        intervals = bootstrap.result()
        covered += bool(intervals.low[0] <= 1 <= intervals.high[0])
    assert 0.88 <= covered / 200 <= 0.98


def test_the_number_of_items_added_at_a_time_does_not_matter() -> None:
    values = np.random.default_rng(0).random((600, 3))
    whole, chunks = PoissonBootstrap(3, seed=4), PoissonBootstrap(3, seed=4)
    whole.add(values)
    for part in np.split(values, [7, 8, 31, 400]):
        chunks.add(part)
    one, two = whole.result(), chunks.result()
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)


def test_an_item_without_a_value_is_not_counted() -> None:
    bootstrap = PoissonBootstrap(2, seed=0)
    bootstrap.add(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]))
    intervals = bootstrap.result()
    assert intervals.mean[0] == 2
    assert np.isnan([intervals.mean[1], intervals.low[1], intervals.high[1]]).all()
    assert intervals.n.tolist() == [2, 0]


@pytest.mark.parametrize("hits", [0, 3, 5, 100])
def test_proportions_have_wilson_s_interval_whatever_items_are_hits(hits: int) -> None:
    ends = set()
    for seed in range(3):
        values = np.zeros((100, 2))
        values[np.random.default_rng(seed).choice(100, hits, replace=False), 1] = 1
        bootstrap = PoissonBootstrap(2, seed=1, proportions=[1])
        bootstrap.add(values)
        intervals = bootstrap.result()
        ends.add((float(intervals.low[1]), float(intervals.high[1])))
    (found,) = ends
    interval = binomtest(hits, 100).proportion_ci(method="wilson")
    assert found == pytest.approx((interval.low, interval.high), abs=1e-9)
