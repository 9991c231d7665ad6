"""Limits of floors of scores that are no shares of items: macro-F1 and chrF."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from analysis.measures import floored_blocks
from analysis.measures.floor_limits import effective_items, upper_limits
from analysis.records import find
from analysis.robustness.collapse import collapsed


def frame_of(headline: str, low: float, high: float, n: float = 200.0) -> pd.DataFrame:
    interval = {f"test/tl/{headline}_low": low, f"test/tl/{headline}_high": high}
    return pd.DataFrame([{"headline": headline, "value": 60.0, "floor": 50.0, "n": n, **interval}])


def wilson(share: float, n: float) -> tuple[float, float]:
    low, high = proportion_confint(share * n, n, method="wilson")
    return float(low), float(high)


@pytest.mark.parametrize("headline", ["f1", "accuracy", "macro_f1", "chrf"])
def test_an_interval_of_wilsons_width_means_as_many_items(headline):
    frame = frame_of(headline, *wilson(0.6, 200))
    assert effective_items(frame, "tl", frame["n"]).tolist() == pytest.approx([200])
    assert upper_limits(frame, "tl", frame["n"], alpha=0.05).tolist() == pytest.approx([100 * wilson(0.5, 200)[1]])


@pytest.mark.parametrize(("headline", "items"), [("macro_f1", 800), ("chrf", 800), ("f1", 200)])
def test_half_the_width_means_four_times_as_many_items(headline, items):
    low, high = wilson(0.6, 200)
    frame = frame_of(headline, 0.6 - (high - low) / 4, 0.6 + (high - low) / 4)
    assert effective_items(frame, "tl", frame["n"]).tolist() == pytest.approx([items])
    assert upper_limits(frame, "tl", frame["n"], alpha=0.05)[0] == pytest.approx(100 * wilson(0.5, items)[1])


def test_without_an_interval_or_a_number_of_items_nothing_changes():
    frame = frame_of("chrf", np.nan, np.nan)
    assert effective_items(frame, "tl", frame["n"]).tolist() == [200]
    unknown = frame_of("chrf", 0.59, 0.61, n=np.nan)
    assert upper_limits(unknown, "tl", unknown["n"], alpha=0.05).isna().all()


def test_a_block_of_macro_f1_is_left_out_by_the_interval_that_its_runs_logged():
    """With rare labels, macro-F1 varies more over items than accuracy: .64 is not clearly above .60."""
    table = designs.table({"A": 0.0, "B": 0.0}, seed_sd=0.1).assign(f1=0.64, base_f1=0.2, headline="macro_f1")
    table = table.assign(**{"floor/tl/majority": 0.6, "test_size": 2000.0, "run_id": "a"})
    assert not find(floored_blocks.split(table, "tl")[1], test=floored_blocks.AT_FLOOR)
    assert not collapsed(table, "tl", {})["collapsed"].any()
    wide = table.assign(**{"test/tl/macro_f1_low": 0.56, "test/tl/macro_f1_high": 0.72})
    assert find(floored_blocks.split(wide, "tl")[1], test=floored_blocks.AT_FLOOR)
    assert collapsed(wide, "tl", {})["collapsed"].all()
