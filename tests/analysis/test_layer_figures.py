"""The figures by layer draw the interval that there is, and the detector's limits stand beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import log_run, spec
from synthetic_probes import CEILING, KAPPA, layer_table, log_probe, shape, shares_of
from test_language_probes import read
from test_report import report_of, text_of

from analysis.naming import Names
from analysis.plots.layers import share_curves
from analysis.plots.style import method_styles
from analysis.runs.probe_runs import mean_by_layer
from whichlora.probing.language.agreement import Sample

OVER_ITEMS = "Bands are 95 % intervals over items; each line is one run."


def curve(values: list[float], half: float = 0.02) -> pd.DataFrame:
    """One layer of several probes."""
    return pd.DataFrame({"layer": 3, "value": values, "low": np.array(values) - half, "high": np.array(values) + half})


def test_of_one_probe_the_interval_is_its_own_and_of_several_it_is_theirs():
    (one,) = mean_by_layer(curve([0.4])).to_dict("records")
    assert one == {"mean": 0.4, "n": 1, "low": pytest.approx(0.38), "high": pytest.approx(0.42)}
    values = [0.4, 0.5, 0.45]
    (three,) = mean_by_layer(curve(values)).to_dict("records")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (three["n"], three["low"], three["high"]) == (3, pytest.approx(low), pytest.approx(high))
    (bounded,) = mean_by_layer(curve([0.0, 0.5]), bounds=(0.0, 1.0)).to_dict("records")
    assert (bounded["low"], bounded["high"]) == (0.0, 1.0)


def test_the_figure_of_one_seed_draws_the_interval_that_its_probe_logged(store):
    own = spec()
    source = log_run(own, "e", items=0)
    log_probe(own, "e", source=source)
    wide = layer_table(shape()).assign(low=lambda t: t["value"] - 0.04, high=lambda t: t["value"] + 0.04)
    log_probe(own, "f", source=log_run(own, "f", items=0), table=wide)
    drawn = []
    for experiment in ("e", "f"):
        shares = read(experiment)[0].shares
        assert (shares["high"] - shares["low"]).round(6).unique() == [0.02 if experiment == "e" else 0.08]
        part = shares[shares["level"] == "token"]
        drawn.append(
            share_curves(part, [], "sw", "token", names=Names(), marks=method_styles(["LoRA"]), name="x", prefix="")
        )
    assert drawn[0].svg != drawn[1].svg
    assert all(plot.caption.startswith(OVER_ITEMS) for plot in drawn)


@pytest.mark.slow
def test_the_caption_says_which_interval_is_drawn(store):
    for seed in (1, 2):
        own = spec(seed=seed)
        log_probe(own, "e", source=log_run(own, "e", items=0), shares=shares_of(own, 0.0))
    assert "Bands are 95 % intervals over seeds. Dashed:" in text_of(report_of("e"))
    own = spec("vera")
    log_probe(own, "e", source=log_run(own, "e", items=0), shares=shares_of(own, 0.0))
    log_probe(spec(variant="none"), "e", source=None)
    mixed = "over seeds, those of lines of one run and the base model over items. Dashed:"
    assert mixed in text_of(report_of("e"))


@pytest.mark.parametrize(("items", "wanted"), [(60, 200), (300, 200), (200, 200), (7, 200), (1000, 3)])
def test_the_number_of_compared_tokens_is_that_of_the_probe(store, items, wanted):
    """Probes before version 3 do not log it; this is their own drawing."""
    sample = Sample(wanted, items, seed=0)
    for index in range(items):
        sample.draw(index, "sw", np.zeros((2, 1, 1), dtype=int), ["a", "b"])
    log_probe(spec(), "e", source=log_run(spec(), "e", items=0), items=items, agreement=wanted)
    found, _ = read("e")
    assert set(found.agreement["n"]) == {len(sample.arrays()["sampled_tokens"])}


def test_a_number_that_the_probe_logged_is_the_one_that_is_told(store):
    log_probe(spec(), "e", source=log_run(spec(), "e", items=0), metrics={**KAPPA, "kappa/n": 137.0})
    assert set(read("e")[0].agreement["n"]) == {137}


def test_agreement_and_ceiling_stand_beside_the_figures(store):
    for seed, kappa in ((1, 0.5), (2, 0.6)):
        own = spec(seed=seed)
        metrics = {"kappa/token": kappa, "kappa/sequence": KAPPA["kappa/sequence"]}
        log_probe(own, "e", source=log_run(own, "e", items=0), metrics=metrics)
    folder = report_of("e")
    page = text_of(folder)
    ceiling = "the ceiling, the shares that the detector finds in the true input (English 4.0 %, Swahili 11.0 %)."
    assert f"{ceiling} CLD3 and Lingua agree with kappa 0.55 on 240 tokens of a probe." in page
    assert "sw token 4.0 (3.0 to 5.0) 11.0 (10.0 to 12.0) .55 (.50 to .60) 240 tokens" in page
    assert "240 tokens sw sequence 0.0 (-1.0 to 1.0) 100.0 (99.0 to 101.0) .31 240 texts" in page
    html = (folder / "report.html").read_text()
    assert (
        html.index('id="layers-sw-token"')
        < html.index('id="detectors"')
        < html.index("Correlation of the shares with F1")
    )
    records = json.loads((folder / "statistics.json").read_text())
    (told,) = [r for r in records if r["test"] == "kappa of CLD3 and Lingua" and r["groups"] == ["sw", "token"]]
    assert (told["effect"], told["interval"], told["n"]) == (pytest.approx(0.55), [0.5, 0.6], 2)
    table = pd.read_csv(Path("out/tables/detectors.csv")).set_index(["by", "share", "what"])["value"]
    assert table["token", "tl", "ceiling"] == pytest.approx(CEILING["token"][1])


def test_detectors_that_were_not_compared_are_said_to_be(store):
    log_probe(spec(), "e", source=log_run(spec(), "e", items=0), metrics={}, agreement=0)
    page = text_of(report_of("e"))
    assert "sw token 4.0 (3.0 to 5.0) 11.0 (10.0 to 12.0) not measured –" in page
    assert "agree with kappa" not in page
