"""Bootstrap intervals: what they cover, and that they do not depend on how items come."""

from __future__ import annotations

import numpy as np
import pytest

from whichlora.probing.bootstrap import Means


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(400, 2))
    means = Means(2, seed=1)
    means.add(values)
    found = means.result()
    error = 1.96 * values.std(0) / 20
    assert found.mean == pytest.approx(values.mean(0))
    assert found.mean - found.low == pytest.approx(error, rel=0.15)
    assert found.high - found.mean == pytest.approx(error, rel=0.15)
    assert found.n.tolist() == [400, 400]


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        means = Means(1, seed=seed)
        means.add(random.exponential(1, size=(80, 1)))
        found = means.result()
        covered += bool(found.low[0] <= 1 <= found.high[0])
    assert 0.88 <= covered / 200 <= 0.98


def test_items_may_come_in_any_portions() -> None:
    values = np.random.default_rng(0).random((600, 3))
    whole, portions = Means(3, seed=4), Means(3, seed=4)
    whole.add(values)
    for part in np.split(values, [7, 8, 31, 400]):
        portions.add(part)
    one, two = whole.result(), portions.result()
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)


def test_an_item_without_a_value_is_not_counted() -> None:
    means = Means(2, seed=0)
    means.add(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]))
    found = means.result()
    assert found.mean[0] == 2
    assert np.isnan([found.mean[1], found.low[1], found.high[1]]).all()
    assert found.n.tolist() == [2, 0]
