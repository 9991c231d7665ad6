"""Results of a study: expected maximum of n trials, and sensitivity to the learning rate."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from tuning.report import by_learning_rate, curve, expected_maximum, sensitivity


def test_the_expected_maximum_is_the_mean_over_all_draws() -> None:
    values = [0.3, 0.9, 0.5, 0.5]
    for n, expected in enumerate(expected_maximum(values), 1):
        draws = itertools.product(values, repeat=n)
        assert expected == pytest.approx(np.mean([max(draw) for draw in draws]))


def test_the_curve_accumulates_over_trials() -> None:
    table = pd.DataFrame({"value": [0.2, 0.6, 0.4], "seconds": [10.0, 20.0, 5.0]})
    found = curve(table)
    assert list(found["best"]) == [0.2, 0.6, 0.6]
    assert list(found["seconds"]) == [10, 30, 35]
    assert found["expected_best"].iloc[0] == pytest.approx(0.4)
    assert curve(pd.DataFrame()).empty


def test_the_sensitivity_is_the_fall_from_the_best_rate_to_the_worst() -> None:
    table = pd.DataFrame({"learning_rate": [1e-3, 1e-3, 1e-2, 1e-4, 1.0], "value": [0.5, 0.9, 0.4, 0.7, 0.0]})
    table["state"] = ["complete"] * 4 + ["pruned"]  # stopped before its final value was known
    rates = by_learning_rate(table)
    assert list(rates["learning_rate"]) == [1e-4, 1e-3, 1e-2]
    assert list(rates["trials"]) == [1, 2, 1]
    assert list(rates["best"]) == [0.7, 0.9, 0.4]
    assert sensitivity(rates) == pytest.approx(0.5)
    assert sensitivity(rates[:1]) is None
    many = pd.DataFrame({"learning_rate": np.geomspace(1e-4, 1e-2, 40), "value": 0.5, "state": "complete"})
    assert len(by_learning_rate(many)) == 7  # thirds of two decades


def test_a_study_without_learning_rates_has_an_empty_table() -> None:
    assert by_learning_rate(pd.DataFrame({"value": [0.5]})).empty
