"""The table at the end of an experiment: means over seeds with intervals, by what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wcwidth
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunInputs, RunTag
from scipy import stats

from whichlora.config.plan import Plan
from whichlora.experiment.grid import Grid
from whichlora.experiment.results_table import results_table
from whichlora.run.seed_summary import statistics
from whichlora.testing.runs import small_plan


def finished(**metrics: float) -> Run:
    """Return a finished run with these scores; `tl` stands for `test/tl/f1`."""
    info = RunInfo("a" * 32, "1", "u", "FINISHED", 0, 1, "active")
    values = [
        Metric(f"test/{name.replace('_', '/f1_', 1) if '_' in name else f'{name}/f1'}", v, 0, 0)
        for name, v in metrics.items()
    ]
    params = [Param("test_digests", '{"en": "", "tl": ""}')]
    return Run(info, RunData(values, params, [RunTag("whichlora.kind", "run")]), RunInputs([]))


def grid_of(plans: list[Plan]) -> Grid:
    return Grid(name="e", about="", plans=plans)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


def test_a_cell_is_the_mean_of_its_seeds_with_students_interval(tiny_model: str) -> None:
    plans = [small_plan(tiny_model, variant=v, seed=s) for v in ("lora", "vera") for s in (1, 2, 3)]
    scores: dict[str, Any] = {}
    values = [0.5, 0.55, 0.6]
    for plan, value in zip(plans[:3], values, strict=True):
        scores[plan.spec.fingerprint] = finished(en=0.9, tl=value)
    scores[plans[3].spec.fingerprint] = finished(en=0.7, en_low=0.6, en_high=0.8, tl=0.4)
    head, lora, vera = cells(results_table(grid_of(plans), scores, width=None))
    assert head == ["method", "seeds", "F1", "en", "95", "%", "CI", "F1", "tl", "95", "%", "CI"]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert lora[:3] == ["lora-matched", "3", "90.0"]
    assert lora[3] == "90.0-90.0"  # seeds that do not vary have an interval without width
    assert lora[4:] == [f"{100 * np.mean(values):.1f}", f"{100 * low:.1f}-{100 * high:.1f}"]
    assert vera == ["vera-matched", "1", "of", "3", "70.0", "60.0-80.0", "40.0"]


def test_columns_are_what_differs(tiny_model: str) -> None:
    plans = [
        small_plan(tiny_model, language=language, tl_ratio=ratio, rank=rank)
        for language in ("sw", "ur")
        for ratio in (0, 0.5)
        for rank in (2, 4)
    ]
    done = {plan.spec.fingerprint: finished(en=0.5, tl=0.5) for plan in plans}
    head, *rows = cells(results_table(grid_of(plans), done, width=None))
    assert head[:5] == ["method", "language", "ratio", "rank", "seeds"]  # `select_on` follows from the ratio
    assert [row[1:4] for row in rows] == [
        [language, ratio, rank] for language in ("sw", "ur") for ratio in ("0", "0.5") for rank in ("2", "4")
    ]


@pytest.mark.parametrize("width", [30, 50, 80])
def test_the_table_fits(tiny_model: str, width: int) -> None:
    plans = [small_plan(tiny_model, language=language, rank=rank) for language in ("sw", "ur") for rank in (2, 4)]
    done = {plan.spec.fingerprint: finished(en=0.5, tl=0.5, en_low=0.4, en_high=0.6) for plan in plans}
    _, *lines = results_table(grid_of(plans), done, width=width).splitlines()
    assert max(map(wcwidth.width, lines)) <= width


def test_runs_of_other_options_are_not_averaged(tiny_model: str, tmp_path: Path) -> None:
    template = tmp_path / "turns.jinja"
    template.write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    each = [{}, {"chat_template": str(template)}, {"validation_size": 2}, {"test_size": 4}]
    plans = [small_plan(tiny_model, **options) for options in each]
    done = {plan.spec.fingerprint: finished(en=0.5, tl=0.5) for plan in plans}
    head, *rows = cells(results_table(grid_of(plans), done, width=None))
    assert head[1:5] == ["validation_size", "test_size", "chat_template", "seeds"]
    assert [row[4] for row in rows] == ["1"] * len(each)


def test_an_interval_over_seeds_is_that_of_the_summary(tiny_model: str) -> None:
    plans = [small_plan(tiny_model, seed=seed) for seed in (1, 2)]
    values = (0.1, 0.15)
    done = {plan.spec.fingerprint: finished(tl=value) for plan, value in zip(plans, values, strict=True)}
    metrics = statistics([run.data.metrics for run in done.values()], "f1")
    low, high = (metrics[f"test/tl/f1_{end}"] for end in ("low", "high"))
    assert low < 0
    assert f"{100 * low:.1f} to {100 * high:.1f}" in results_table(grid_of(plans), done, width=None)
