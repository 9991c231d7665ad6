"""One bad run never ends an analysis: it is listed as left out, with its reason, and the report goes on."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Metric, Param
from synthetic import log_design, log_run, spec
from synthetic_probes import log_probe
from test_pulled_runs import pulled

from analysis import analyze
from analysis.runs import language_probes, predictions
from whichlora.tracking.client import connect, experiment_id

GOOD = [("lora", "matched"), ("vera", "matched")]


def log_raw(experiment: str, *, params: dict[str, str] | None = None, metrics: dict[str, float] | None = None) -> str:
    """Log a run as another program might, with these params and metrics in place of the usual ones."""
    client = connect()
    run = client.create_run(experiment_id(client, experiment), run_name="bad", tags={"whichlora.kind": "run"})
    usual = {key: str(value) for key, value in spec("dora", seed=1).to_dict().items() if key != "test_digests"}
    logged = {**usual, "layers": "0,1", "variant_options": "{}", "target_modules": "q_proj", **(params or {})}
    scores = {"test/en/f1": 0.5, "test/tl/f1": 0.5, **(metrics or {})}
    client.log_batch(
        run.info.run_id,
        params=[Param(key, value) for key, value in logged.items()],
        metrics=[Metric(key, value, 0, 0) for key, value in scores.items()],
    )
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def analysed() -> str:
    assert analyze.main(["--experiment", "e", "--output", "out"]) == 0
    return (Path("out") / "report.html").read_text()


@pytest.mark.parametrize(
    ("params", "metrics", "reason"),
    [
        ({}, {"test/tl/f1": 1e308}, "has test/tl/f1 1e+308, which is not between 0 and 1"),
        ({}, {"test/en/f1": -3.0}, "has test/en/f1 -3, which is not between 0 and 1"),
        ({}, {"test/en/f1": math.nan}, "lacks test/en/f1"),
        ({}, {"test/en/f1": math.inf}, "has test/en/f1 1.79769e+308, which is not between 0 and 1"),
        ({}, {"train/loss": math.nan}, "has train/loss nan"),
        ({}, {"gain/tl": math.nan}, "has gain/tl nan"),
        ({}, {"test/retention/en/f1": math.inf}, "has test/retention/en/f1 1.79769e+308, which"),
        ({}, {"base/tl/f1": 1e308}, "has base/tl/f1 1e+308, which is not between 0 and 1"),
        ({}, {"floor/en/overlap": -2.0}, "has floor/en/overlap -2, which is not between 0 and 1"),
        ({}, {"train/seconds": 1e308}, "has train/seconds 1e+308, which is no measured value"),
        ({}, {"adapter/trainable_parameters": -1e300}, "has adapter/trainable_parameters -1e+300"),
        ({"test_digests": "[1]"}, {}, "has test_digests that are no JSON object"),
        ({"test_digests": "7"}, {}, "has test_digests that are no JSON object"),
        ({"test_digests": "{"}, {}, "has test_digests that are no JSON object"),
        ({"tl_ratio": "half"}, {}, "lacks tl_ratio"),
        ({"tl_ratio": "7"}, {}, "has tl_ratio 7, which is not between 0 and 1"),
        ({"tl_ratio": "-1e308"}, {}, "has tl_ratio -1e+308, which is not between 0 and 1"),
        ({"seed": "1.5"}, {}, "has seed 1.5, which is no whole number"),
        ({"seed": "1e300"}, {}, "has seed 1e+300, which is no whole number"),
        ({"seed": "inf"}, {}, "lacks seed"),
        ({"seed": "first"}, {}, "lacks seed"),
    ],
)
def test_a_run_without_a_usable_value_is_left_out_with_its_reason(
    store: Path, params: dict[str, str], metrics: dict[str, float], reason: str
) -> None:
    log_design("e", methods=GOOD, seeds=(1, 2), ratios=(0.5,), items=0)
    bad = log_raw("e", params=params, metrics=metrics)
    design = pulled("e").design
    assert [(issue.run_id, issue.text.startswith(reason)) for issue in design.incomplete] == [(bad, True)], (
        design.incomplete
    )
    assert len(design.used) == 2 * 2 * 2


ODD: list[tuple[dict[str, str], dict[str, float]]] = [
    ({"layers": ""}, {}),
    ({"layers": "every second"}, {}),
    ({"layers": "7-3"}, {}),
    ({"layers": "0-999999999999"}, {}),
    ({"rank": "eight", "alpha": "inf", "dropout": "", "learning_rate": "nan", "epochs": "1e400"}, {}),
    ({"train_size": "all", "validation_size": "-1", "test_size": "1e308"}, {}),
    ({"variant_options": "[1, 2]", "target_modules": ""}, {}),
    ({"variant_options": "{'a': 1}", "prompt_language": "", "precision": ""}, {}),
    ({"variant": "none of ours", "arm": "?", "task": "their task", "model": "/"}, {}),
    ({}, {"train/seconds": math.nan, "base/en/f1": math.nan, "floor/en/overlap": math.nan, "gpu/energy_j": math.inf}),
    ({}, {"status": 1.0, "rank": 3.0, "task": 2.0, "name": 5.0, "outcome": 1.0, "adapter": 2.0, "method": 4.0}),
    ({"method": "theirs", "setting": "x", "outcome": "y", "f1": "z", "value": "w", "defects": "none"}, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ODD)))
def test_odd_values_that_no_result_depends_on_end_nothing(store: Path, number: int) -> None:
    log_design("e", methods=GOOD, seeds=(1, 2), ratios=(0.5,), items=0)
    params, metrics = ODD[number]
    log_raw("e", params=params, metrics=metrics)
    assert "2 methods" in analysed() or "3 methods" in analysed()


def test_full_fine_tuning_has_no_layers(store: Path) -> None:
    """The claims about layers look at all runs; one that names none must not end the report."""
    for layers in ("0,1,2", ""):
        for seed in (1, 2):
            log_raw("e", params={"variant": "lora", "layers": layers, "seed": str(seed)})
    assert "All layers" in analysed() or "all layers" in analysed()


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns",
    [
        {"gold": ["a"], "predicted": ["a"]},
        {"id": ["1"], "predicted": ["a"]},
        {"id": ["1"], "gold": ["a"]},
        {"id": [[1, 2]], "gold": ["a"], "predicted": ["a"]},
        {"id": ["1"], "gold": [{"x": 1}], "predicted": ["a"]},
        {"id": ["1"], "gold": ["a"], "predicted": [["a"]]},
        {"id": ["1"], "gold": ["a"], "predicted": ["a"], "p_a": ["likely"]},
        {"id": ["1"], "gold": ["a"], "predicted": ["a"], "p_a": [[0.5]]},
    ],
)
def test_predictions_in_another_form_are_left_out(store: Path, columns: dict[str, list[Any]]) -> None:
    log_design("e", methods=GOOD, seeds=(1, 2), ratios=(0.5,), items=12)
    bad = log_raw("e")
    log_files(bad, columns)
    frame, issues = predictions.fetch(pulled("e").table)
    assert {(issue.run_id, issue.text) for issue in issues} == {
        (bad, f"has no {outcome} predictions that can be read") for outcome in ("en", "tl")
    }
    assert len(frame) == 12 * 2 * 2 * 2 * 2
    assert "have no item-level predictions" in analysed()


@pytest.mark.parametrize(
    "columns",
    [
        {"id": [1, 2], "gold": [0, 1], "predicted": [0, 0]},
        {"id": ["1", None], "gold": ["a", None], "predicted": [None, "b"]},
        {"id": ["1", "2"], "gold": ["a", "b"], "predicted": ["a", "a"], "p_a": [1, 0], "p_b": [0, 1]},
        {"id": ["1", "1"], "gold": ["a", "b"], "predicted": ["a", "a"], "p_a": [math.nan, 0.5]},
        {"id": [], "gold": [], "predicted": []},
    ],
)
@pytest.mark.slow
def test_predictions_of_other_types_are_read_where_they_can_be(store: Path, columns: dict[str, list[Any]]) -> None:
    log_design("e", methods=GOOD, seeds=(1, 2), ratios=(0.5,), items=12)
    log_files(log_raw("e"), columns)
    analysed()


def test_a_probe_in_another_form_is_left_out(store: Path) -> None:
    log_design("e", methods=GOOD, seeds=(1, 2), ratios=(0.5,), items=0)
    source = log_run(spec("pissa"), "e", items=0)
    table = pd.DataFrame({"layer": ["first"], "measure": ["token/english"], "value": ["high"], "low": 0, "high": 1})
    bad = log_probe(spec("pissa"), "e", source=source, table=table.assign(n=5))
    found = language_probes.fetch(pulled("e"))
    assert [(issue.run_id, "can be read" in issue.text) for issue in found.left_out] == [(bad, True)]
    analysed()


def log_files(run_id: str, columns: dict[str, list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for outcome in ("en", "tl"):
            pd.DataFrame(columns).to_parquet(Path(scratch) / f"{outcome}.parquet")
        connect().log_artifacts(run_id, scratch, "predictions")
