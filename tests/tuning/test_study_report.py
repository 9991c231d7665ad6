"""Results of a study: expected maximum of n trials, sensitivity to the learning rate, and the command of the best."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_studies import study

from tuning.finalists import Finalist
from tuning.outcome import outcome
from tuning.report import by_learning_rate, curve, expected_maximum, sensitivity
from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.resolve import resolve


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


@pytest.mark.parametrize("origin", ["trial 0", "recommended"])
def test_the_command_of_the_best_has_every_option_of_the_study(
    options: dict[str, str], store: Path, origin: str
) -> None:
    (store / "turns.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    options |= {
        **{"chat_template": "turns.jinja", "scoring": "generate", "select_on": "tl", "prompt_language": "item"},
        **{"composition": "addition", "tl_ratio": "0.25", "language": "ur", "rank": "4", "alpha": "8"},
    }
    tuned = study(options)
    best = Finalist(origin=origin, point=tuned.config.example, fresh=(0.9, 0.9))
    printed = outcome([(tuned, [best])], experiment="tests", summary="", width=None)
    (line,) = (line for line in printed.splitlines() if line.endswith("# the best"))
    words = shlex.split(line, comments=True)
    assert words[:2] == ["whichlora", "run"]
    given = {name.removeprefix("--"): text for name, text in zip(words[2::2], words[3::2], strict=True)}
    assert resolve(parse_options(given)).spec == best.plan(tuned.config, int(RUN_OPTIONS["seed"][0])).spec
