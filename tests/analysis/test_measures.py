"""Derived views on tables whose answers can be worked out by hand."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.measures import scores
from analysis.measures.shallow_baselines import REACHED, floor_records
from analysis.measures.summaries import derived, item_records, summarise
from analysis.records import find

ROWS = [
    # method, language, ratio, seed, outcome, f1
    ("LoRA", "", 0.0, 1, "en", 0.80),
    ("LoRA", "sw", 0.5, 1, "en", 0.77),
    ("LoRA", "hi", 0.5, 1, "en", 0.81),
    ("LoRA", "sw", 0.0, 1, "tl", 0.50),
    ("LoRA", "hi", 0.0, 1, "tl", 0.60),
    ("LoRA", "sw", 0.5, 1, "tl", 0.70),
    ("LoRA", "hi", 0.5, 1, "tl", 0.60),
    ("VeRA", "sw", 0.5, 1, "tl", 0.65),
]
TABLE = pd.DataFrame(ROWS, columns=["method", "language", "tl_ratio", "seed", "outcome", "f1"])


def values(frame: pd.DataFrame) -> dict[tuple[str, str, float], float]:
    return {(m, x, r): v for m, x, r, v in frame[["method", "language", "tl_ratio", "value"]].itertuples(index=False)}


def test_retention_is_english_against_the_same_seed_at_ratio_0():
    assert values(scores.retention(TABLE)) == pytest.approx({("LoRA", "sw", 0.5): -3, ("LoRA", "hi", 0.5): 1})


def test_the_transfer_gap_is_english_minus_target_of_the_same_run():
    expected = {("LoRA", "sw", 0.0): 30, ("LoRA", "hi", 0.0): 20, ("LoRA", "sw", 0.5): 7, ("LoRA", "hi", 0.5): 21}
    assert values(scores.transfer_gap(TABLE)) == pytest.approx(expected)


def test_gain_per_percent_of_target_data():
    assert values(scores.gain_per_percent(TABLE)) == pytest.approx({("LoRA", "sw", 0.5): 0.4, ("LoRA", "hi", 0.5): 0.0})


def test_gain_is_against_the_base():
    found = scores.gain(TABLE.assign(base_f1=0.4), outcome="tl")
    assert values(found)["LoRA", "sw", 0.5] == pytest.approx(30)
    assert scores.gain(TABLE, outcome="tl").empty


def test_above_the_floor_is_against_the_best_of_the_run_and_what_does_not_exceed_it_is_counted():
    floors = TABLE.assign(**{"floor/tl/majority": 0.3, "floor/tl/overlap": [0.1] * 4 + [0.6, 0.5, 0.75, 0.1]})
    found = values(scores.above_floor(floors, outcome="tl"))
    assert found == pytest.approx(
        {("LoRA", "sw", 0.0): 20, ("LoRA", "hi", 0.0): 0, ("LoRA", "sw", 0.5): 20, ("LoRA", "hi", 0.5): -15}
        | {("VeRA", "sw", 0.5): 35}
    )
    assert scores.above_floor(floors, outcome="en").empty
    records = floor_records(floors, "tl")
    assert {r.groups: (r.n, r.effect) for r in find(records, test=REACHED)} == {
        (): (2, 40.0),
        ("LoRA",): (2, 50.0),
        ("VeRA",): (0, 0.0),
    }
    means = {r.groups: r.effect for r in find(records, test="floor F1")}
    assert means == pytest.approx({("majority",): 30, ("overlap",): 43.75})  # of four blocks, one with two runs
    assert find(records, test="best floor F1")[0].effect == pytest.approx(51.25)
    assert floor_records(TABLE, "tl") == []


def test_forgetting_is_what_the_base_loses_elsewhere():
    found = scores.forgetting(TABLE.assign(before=0.9, after=0.7), before="before", after="after")
    assert set(found["value"].round(9)) == {20.0}
    assert scores.forgetting(TABLE, before="before", after="after").empty


def test_the_front_holds_what_nothing_cheaper_equals():
    rows = [("a", 0.5, 10), ("b", 0.7, 20), ("c", 0.6, 30), ("d", 0.9, 40), ("e", 0.7, 20), ("f", 0.7, 21)]
    table = pd.DataFrame(rows, columns=["method", "f1", "cost"]).assign(
        outcome="tl", language="sw", tl_ratio=0.1, seed=1, adapter=list("abcdef")
    )
    found = scores.pareto(table, outcome="tl", cost="cost")
    assert set(found.loc[found["front"], "method"]) == {"a", "b", "e", "d"}
    assert scores.pareto(table, outcome="tl", cost="watts").empty
    shared = table.head(1).assign(language="ur", f1=0.3)  # the same adapter
    other = table.head(1).assign(seed=2, adapter="other", cost=40, f1=0.4)
    (row,) = scores.pareto(pd.concat([table.head(1), shared, other]), outcome="tl", cost="cost").to_dict("records")
    assert (row["cost"], row["value"], row["n"]) == (25, pytest.approx(40), 3)


def test_agreement_and_kappa():
    """Two raters over 50 items: 20 both, 15 neither, 5 and 10 apart; kappa is 0.4 (Wikipedia's example of Cohen's)."""
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    parts = [
        designs.items({m: 0.5}, n=50).assign(correct=[float(p[i]) for p in pairs]) for i, m in enumerate(("A", "B"))
    ]
    (row,) = scores.agreement(pd.concat(parts), outcome="tl").to_dict("records")
    assert (row["both"], row["neither"], row["first_only"], row["second_only"]) == (0.4, 0.3, 0.1, 0.2)
    assert row["kappa"] == pytest.approx(0.4)


def test_calibration_error_by_hand():
    items = designs.items({"A": 0.5}, n=4).assign(correct=[1.0, 0.0, 1.0, 1.0], confidence=[0.95, 0.95, 0.55, 1.0])
    found = scores.calibration(items, outcome="tl", bins=10)
    # The bin to 1.0 holds .95, .95 and 1.0 with two right; the bin to .6 holds .55 with one right.
    assert found["value"].item() == pytest.approx(100 * (3 * abs(2 / 3 - 2.9 / 3) + 1 * 0.45) / 4)
    assert scores.reliability(items, outcome="tl", bins=10)["n"].tolist() == [1, 3]


def test_confidences_of_0_and_1_are_in_the_outer_bins():
    items = designs.items({"A": 0.5}, n=2).assign(correct=1.0, confidence=[0.0, 1.0])
    assert scores.reliability(items, outcome="tl", bins=5)["bin"].tolist() == [0, 4]


def test_items_without_confidence_have_no_calibration():
    items = designs.items({"A": 0.5, "B": 0.5}).drop(columns="confidence")
    assert scores.calibration(items, outcome="tl").empty
    assert {r.analysis for r in item_records(items, outcome="tl")} == {"agreement"}


def test_means_have_the_t_interval_over_seeds():
    from scipy.stats import ttest_1samp

    table = designs.table({"LoRA": 0.0}, languages=("sw",), ratios=(0.1,), seeds=range(5)).assign(base_f1=0.5)
    found = derived(table, outcome="tl")
    (cell,) = find(found, analysis="gain", groups=("LoRA", "sw", "0.1"))
    points = 100 * (table.loc[table["outcome"] == "tl", "f1"] - 0.5)
    interval = ttest_1samp(points, 0).confidence_interval()
    assert cell.effect == pytest.approx(points.mean())
    assert cell.interval == pytest.approx((interval.low, interval.high))
    assert cell.n == 5


def test_one_seed_has_a_mean_without_an_interval():
    found = summarise(scores.retention(TABLE), analysis="retention", outcome="en")
    assert [r.interval for r in found] == [None, None]
    (mean,) = summarise(scores.retention(TABLE), analysis="retention", outcome="en", by=("method",))
    assert (mean.effect, mean.n) == (pytest.approx(-1), 2)


def test_what_cannot_be_derived_is_said():
    (record,) = find(derived(TABLE, outcome="tl"), analysis="gain")
    assert record.note.startswith("no test")


def test_tuned_against_both_kinds_of_default_values_is_paired():
    parts = [
        designs.table({"LoRA": lead}, block_sd=0, at=at).assign(variant="lora", arm=arm, method=f"LoRA ({arm})")
        for at, (lead, arm) in enumerate(((5.0, "tuned"), (3.0, "recommended"), (0.0, "matched")))
    ]
    found = find(derived(pd.concat(parts), outcome="tl"), analysis="tuned", test="paired t")
    effects = {record.groups: record.effect for record in found}
    assert effects[("arm tuned", "arm recommended")] == pytest.approx(2.0, abs=1)
    assert effects[("arm tuned", "arm matched")] == pytest.approx(5.0, abs=1)


def test_shares_of_the_views_are_in_the_records():
    items = designs.items({"A": 0.8, "B": 0.7, "C": 0.6})
    found = item_records(items, outcome="tl")
    assert len(find(found, analysis="agreement")) == 3
    assert len(find(found, analysis="calibration")) == 3
    assert all(np.isfinite(r.effect) for r in found)
