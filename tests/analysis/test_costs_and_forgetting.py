"""Costs of inference, bytes, price and forgetting of general text in the report, also where older runs lack them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from scipy import stats
from synthetic import log_run, spec

from analysis import analyze
from analysis.measures.costs import ALL_COSTS, costs_of, pareto_records
from analysis.measures.forgetting import GENERAL_TEXT, forgetting_records
from analysis.records import Record, find
from analysis.runs.adapter_sizes import join_sizes
from analysis.runs.pull import pull
from analysis.tables.formats import Table
from analysis.tables.paper import make_tables
from whichlora.tracking.lookup import find_experiments

VALUES = {  # rise of cross-entropy in English, ms a token unmerged and merged, bytes
    "lora": (0.10, 12.0, 9.0, 9_800_000),
    "dora": (0.12, 95.0, 9.0, 10_400_000),
    "vera": (0.02, 20.0, 9.1, 900_000),
}


def shown(table: Table) -> dict[str, list[str]]:
    """Return the texts of a table's rows by method."""
    return {row[0][0].text: [parts[0].text for parts in row[1:]] for row in table.rows}


def more(variant: str, seed: int) -> dict[str, float]:
    rise, unmerged, merged, size = VALUES[variant]
    rise += {"lora": 0.01, "dora": 0.02, "vera": 0.005}[variant] * seed
    return {
        **{"forgetting/en/ce_rise": rise, "forgetting/en/base_ce": 2.5, "forgetting/en/ce": 2.5 + rise},
        **{"forgetting/en/tokens": 1843.0, "adapter/file_bytes": size, "train/price": 0.1 + seed / 1000},
        **{
            "inference/token_ms": unmerged + seed / 10,
            "inference/merged/token_ms": merged,
            "inference/other_load": 0.0,
        },
    }


def tables_of(table: pd.DataFrame) -> tuple[dict[str, Table], list[Record]]:
    made, records = make_tables(table)
    return {one.name: one for one in made}, records


def frame(*, seeds: tuple[int, ...] = (1, 2, 3), pause: float = 0.0) -> pd.DataFrame:
    """Return the results of three methods, and of one run from before there were such metrics."""
    for variant, f1 in (("lora", 0.9), ("dora", 0.91), ("vera", 0.7)):
        for seed in seeds:
            score = f1 + seed / 1000
            log_run(spec(variant, seed=seed), "e", items=0, f1={"en": score, "tl": score}, more=more(variant, seed))
            time.sleep(pause)
    log_run(spec("pissa", seed=1), "e", items=0, f1={"en": 0.8, "tl": 0.8})
    client = MlflowClient()
    return join_sizes(client, pull(client, find_experiments(client, "e")).table)


def test_the_tables_have_means_intervals_and_words(store: Path) -> None:
    table = frame()
    made, records = tables_of(table)
    forgotten = made["forgetting"]
    assert forgotten.header == ("method", "English")
    rises = [0.11, 0.12, 0.13]
    half = stats.t.ppf(0.975, 2) * np.std(rises, ddof=1) / np.sqrt(3)
    text = f"+0.120 ({0.12 - half:.3f} to {0.12 + half:.3f})"
    assert shown(forgotten)["LoRA"] == [text]
    assert "English: 2.500 before, 1,843 tokens." in forgotten.caption
    assert "nats per token" in forgotten.caption
    assert shown(forgotten)["PiSSA"] == ["–"]
    speed = made["inference"]
    assert [text for text in speed.header if "ms" in text] == ["token, ms", "merged: token, ms"]
    assert shown(speed)["VeRA"][0] == "20.2 ± 0.1"
    assert "PiSSA" not in shown(speed)
    assert "price" in made["efficiency"].header
    assert next(r for r in records if r.test == "forgetting/en/ce_rise" and r.groups[0] == "VeRA").n == 3
    assert set(table.loc[table["variant"] == "vera", "adapter/size_mb"]) == {0.9}


def test_fronts_are_of_each_cost_and_of_all(store: Path) -> None:
    table = frame().assign(place="here", started=range(20), ended=[i + 0.5 for i in range(20)])
    records = pareto_records(table, outcome="tl")
    on_front = {(r.test, r.groups[0]) for r in records if r.analysis == "pareto" and r.note == "on the front"}
    assert {m for t, m in on_front if t == "inference/token_ms"} == {"LoRA", "DoRA*"}
    assert {m for t, m in on_front if t == "forgetting/en/ce_rise"} == {"LoRA", "DoRA*", "VeRA"}
    joint = {r.groups[0]: r.note for r in records if r.analysis == ALL_COSTS}
    assert joint == dict.fromkeys(("LoRA", "DoRA*", "VeRA"), "on the front")  # PiSSA was not measured
    slow = table.assign(**{"f1": table["f1"].where(table["variant"] != "dora", 0.1)})
    joint = {r.groups[0]: r.note for r in pareto_records(slow, outcome="tl") if r.analysis == ALL_COSTS}
    assert joint["DoRA*"] == "at least as good in all and better in one: LoRA, VeRA"


def test_times_of_inference_of_runs_that_overlapped_are_no_cost(store: Path) -> None:
    table = frame()
    apart = table.assign(place="here", started=range(20), ended=[i + 0.5 for i in range(20)])
    together = table.assign(place="here", started=range(20), ended=[i + 1.5 for i in range(20)])
    assert "inference/token_ms" in costs_of(apart)
    assert "inference/token_ms" not in costs_of(together)
    assert {"adapter/size_mb", "forgetting/en/ce_rise"} <= set(costs_of(together))


def test_forgetting_is_tested_for_all_pairs_in_nats(store: Path) -> None:
    records = forgetting_records(frame())
    analysis = f"{GENERAL_TEXT} in English"
    pairs = {r.groups: r for r in find(records, analysis=analysis) if r.p_adjusted is not None}
    difference = next(r for groups, r in pairs.items() if set(groups) == {"LoRA", "VeRA"})
    assert abs(difference.effect or 0) == pytest.approx(0.09)  # not in points
    means = [r for r in find(records, analysis=analysis, test="mean") if r.groups[0] == "LoRA"]
    assert means[0].effect == pytest.approx(0.12)
    assert means[0].interval is not None
    assert "nats per token" in means[0].note
    assert not any("points" in record.note for record in find(records, analysis=analysis))


def test_the_report_of_runs_without_the_new_metrics_has_none_of_it(full: str) -> None:
    client = MlflowClient()
    made, _ = tables_of(pull(client, find_experiments(client, "full")).table)
    assert not {"inference", "forgetting"} & set(made)


@pytest.mark.slow
def test_the_report_shows_them(store: Path) -> None:
    frame(pause=0.01)
    assert analyze.main(["--experiment", "e", "--output", "out"]) == 0
    page = (store / "out" / "report.html").read_text()
    assert "Forgetting of general text." in page
    assert "Costs of inference." in page
    assert "nats per token" in page
    assert (store / "out" / "tables" / "forgetting.csv").is_file()
    assert "inference, ms a token" in page
