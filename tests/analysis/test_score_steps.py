"""Rounds of seeds with scores that move in steps: what the rule makes of them, and the simulation of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_scores import scores, verdict

from benchmarks.simulated import rounds, steps


def test_a_difference_that_is_always_the_same_is_known_up_to_the_rounding_of_scores():
    table = pd.DataFrame({"A": [100.0] * 8, "B": [100.0] * 8, "C": [75.0] * 8}, index=range(1, 9))
    assert {s.decided for s in verdict(table).standings} == {False}
    found = verdict(table, resolution=100 / 300)
    assert found.finished
    assert found["C"].state == "dropped"
    assert {found[name].state for name in "AB"} == {"leader", "level"}
    assert verdict(table.iloc[:3], resolution=100 / 30)["A"].decided is False


@pytest.mark.parametrize(("items", "decided"), [(50, True), (20, False)])
def test_with_steps_far_above_the_margin_twenty_seeds_do_not_show_that_methods_are_level(items, decided):
    table = pd.DataFrame({"A": [80.0] * 20, "B": [80.0] * 20}, index=range(1, 21))
    assert verdict(table, resolution=100 / items).finished is decided


def test_coarse_scores_only_widen_the_intervals():
    table = scores(3)  # one look, after which they would run different seeds
    exact, coarse = (verdict(table, resolution=step, margin=3.0, max_seeds=8) for step in (0.0, 2.0))
    for standing in coarse.standings:
        low, high = exact[standing.method].interval
        assert standing.interval[0] <= low
        assert standing.interval[1] >= high


@pytest.mark.parametrize("name", steps.edges())
def test_what_is_true_of_drawn_scores_is_their_mean(name):
    setting = steps.edges()[name]
    drawn = setting.draw(np.random.default_rng(1), 20_000, 2)
    multiples = drawn * setting.languages / setting.step
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-9)
    means = drawn.mean(axis=(0, 2))
    error = np.sqrt(drawn.var(axis=(0, 2)).max() / 20_000)
    np.testing.assert_allclose(means[0] - means, setting.worse, atol=5 * error)
    assert ((setting.worse[1:] > rounds.MARGIN) == ("beyond" in name)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in steps.edges() if "one item of the five" in name])
def test_wrong_decisions_are_rare_where_scores_hardly_vary(name):
    """2,000 draws in docs/rounds.md; here 600."""
    found = steps.both(steps.edges()[name], 600, 0)
    assert found["false drop"] + found["false level"] <= 0.05
    assert found["coverage"] >= 0.94


def test_a_rule_that_knows_the_steps_decides_where_nothing_varies_and_a_fixed_design_never_does():
    setting = replace(steps.settings()["two level, four losers, 300 items, SD .01"], most=8)
    found = steps.both(setting, 20, 20)
    assert (found["decided, 0"], found["decided"], found["all right"]) == (0.0, 1.0, 1.0)
    assert math.isinf(found["fixed"])
