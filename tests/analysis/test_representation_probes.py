"""Alignment and weight probes are read from what they logged, and shown beside what they are comparable with."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from synthetic import log_run, spec
from synthetic_pairs import log_injection, pair_spec
from synthetic_probes import LAYERS, aligned_table, log_aligned, log_probe, weight_table
from test_report import numbers, report_of, text_of

from analysis.records import find
from analysis.runs import representation_probes
from analysis.runs.probe_runs import BASE
from analysis.runs.pull import pull
from analysis.tables import representations
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments


def read(experiment: str) -> representation_probes.RepresentationProbes:
    client = connect()
    return representation_probes.fetch(pull(client, find_experiments(client, experiment)))


def log_pair(experiment: str) -> dict[str, str]:
    """Log two methods with an alignment probe each, and one of their base model; ids by name."""
    ids = {}
    for variant, top in (("lora", 0.3), ("vera", 0.2)):
        own = spec(variant)
        ids[variant] = log_run(own, experiment, items=0)
        ids[f"probe of {variant}"] = log_aligned(own, experiment, source=ids[variant], table=aligned_table(7, top))
    ids["base"] = log_aligned(spec(variant="none"), experiment, source=None, table=aligned_table(5, 0.1))
    return ids


def test_every_line_has_its_own_values_at_its_best_block_and_the_last(store):
    ids = log_pair("e")
    found = read("e")
    assert set(found.used) == {ids["probe of lora"], ids["probe of vera"], ids["base"]}
    tables, records = representations.make_tables(found)
    (table,) = tables
    shown = [tuple("/".join(part.text for part in cell) for cell in row) for row in table.rows]
    assert shown[0] == ("LoRA", "highest", "7", "0.300", "0.030", "0.300/0.150", "0.500/0.400", "1")
    assert shown[1] == ("LoRA", "last", "11", "0.220", "0.022", "0.220/0.110", "0.500/0.400", "1")
    assert shown[2][:4] == ("VeRA", "highest", "7", "0.200")
    assert shown[4][:4] == (BASE, "highest", "5", "0.100")
    (top,) = find(records, test="cosine/gap/centred", groups=("LoRA", "block 7"))
    assert (top.effect, top.interval, top.n) == (pytest.approx(0.3), pytest.approx((0.29, 0.31)), 1)
    (chance,) = [r for r in find(records, test="chance") if r.groups[0] == "p1"]
    assert chance.effect == pytest.approx(0.01)
    assert set(table.numbers["layer"]) == set(range(-1, LAYERS))


def test_the_report_draws_the_layers_and_says_what_chance_is(store):
    log_pair("e")
    folder = report_of("e")
    page = text_of(folder)
    assert "Alignment of translations by layer" in page
    assert "smollm2-135m, fp32. 100 word pairs, first token drop, English and sw." in page
    assert "Chance: P@1 0.010, MRR 0.050." in page
    assert "Bands are 95 % intervals over items; each line is one run." in page
    image = matplotlib.image.imread(folder / "figures" / "alignment-sw.png")[..., :3]
    assert (np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]) == 1).all()
    html = (folder / "report.html").read_text()
    assert html.count('id="alignment-sw"') == html.count('id="translations-sw"') == 1
    assert "probes are left out" not in page
    assert set(json.loads((folder / "sources.json").read_text())["probes"]) == set(read("e").used)


@pytest.mark.slow
def test_texts_that_are_not_the_same_are_not_put_together(store):
    run_id = log_run(spec(), "e", items=0)
    for more in ({}, {"digest": "others"}, {"language": "tr"}, {"first_token": "keep"}):
        log_aligned(spec(), "e", source=run_id, table=aligned_table(), **more)
    found = representation_probes.comparable_groups(read("e").alignment)
    assert len(found) == 4
    assert len({group.suffix for group in found}) == 4
    assert [group.language for group in found].count("tr") == 1
    assert len(list(report_of("e").glob("figures/alignment-*.png"))) == 4


@pytest.mark.slow
def test_lines_are_told_apart_by_what_differs_but_the_seed(store):
    for ratio in (0.0, 0.5):
        for seed in (1, 2):
            own = spec(tl_ratio=ratio, seed=seed)
            log_aligned(own, "e", source=log_run(own, "e", items=0), table=aligned_table(top=0.2 + 0.1 * seed))
    (group,) = representation_probes.comparable_groups(read("e").alignment)
    assert [line for line, _ in group.lines()] == ["LoRA, 0 %", "LoRA, 50 %"]
    _, records = representations.make_tables(read("e"))
    (mean,) = find(records, test="cosine/gap/centred", groups=("LoRA, 0 %", "block 7"))
    assert (mean.effect, mean.n) == (pytest.approx(0.35), 2)
    assert "Bands are 95 % intervals over seeds. The gap" in text_of(report_of("e"))


@pytest.mark.slow
def test_states_of_two_models_are_compared_by_layer(store):
    own, other = spec(), spec("vera")
    first, second = log_run(own, "e", items=0), log_run(other, "e", items=0)
    for against in ("base", other.fingerprint):
        log_aligned(own, "e", source=first, table=aligned_table(cka=True), against=against)
    log_aligned(other, "e", source=second, table=aligned_table())
    tables, _ = representations.make_tables(read("e"))
    table = next(table for table in tables if table.name.startswith("cka"))
    shown = [["/".join(part.text for part in cell) for cell in row] for row in table.rows]
    assert shown[0] == ["LoRA and VeRA, seed 1", "0.880 (11)", "0.880 (11)", "0.790 (11)", "0.790 (11)", "1"]
    assert shown[1][0] == "LoRA and base model"
    _, records = representations.make_tables(read("e"))
    (top,) = find(records, test="cosine/gap/centred", groups=("LoRA", "block 7"))
    assert top.n == 1  # two probes, but one run
    assert report_of("e").joinpath("figures", "alignment-cka-sw.png").is_file()


def test_weights_are_a_mean_over_modules_and_then_over_probes(store):
    other = spec("vera")
    fingerprint = other.fingerprint
    log_probe(other, "e", source=log_run(other, "e", items=0), kind="weights", table=weight_table(0.1, 256.0))
    for seed, norm in ((1, 0.02), (2, 0.04)):
        own = spec(seed=seed)
        table = weight_table(norm, overlap=0.5)
        log_probe(own, "e", source=log_run(own, "e", items=0), kind="weights", table=table, against=fingerprint)
    _, records = representations.make_tables(read("e"))
    layers = np.arange(1, LAYERS + 1)
    modules = np.where(layers < LAYERS, 2, 1)
    mean = 0.03 * (layers * modules).sum() / modules.sum()
    where = ("LoRA", "atlas-nli, smollm2-135m", "VeRA, seed 1")
    (norm,) = find(records, analysis="weights", test="relative_norm", groups=where)
    assert (norm.effect, norm.n) == (pytest.approx(mean), 2)
    (rank,) = find(records, analysis="weights", test="rank", groups=("VeRA", "atlas-nli, smollm2-135m"))
    assert rank.effect == 256
    page = text_of(report_of("e"))
    assert "LoRA VeRA, seed 1" in page
    assert "8.00 ± 0.00 0.50 ± 0.00 (0.01) 0.25 ± 0.00 (0.02) 2" in page
    assert "256.00" in page
    table = pd.read_csv("out/tables/weights.csv").set_index(["of", "measure", "layer"])["mean"]
    assert table["LoRA and VeRA, seed 1", "relative_norm/q_proj", 3] == pytest.approx(0.12)


@pytest.mark.slow
def test_every_number_of_both_tables_is_in_the_statistics(store):
    log_pair("e")
    own = spec(seed=2)
    log_probe(own, "e", source=log_run(own, "e", items=0), kind="weights", table=weight_table())
    folder = report_of("e")
    text = text_of(folder)
    text = text[text.index("Alignment of translations by layer") : text.rindex("Further results")]
    known = {"-1", "135", "1", "95", "0", "8"}
    for record in json.loads((folder / "statistics.json").read_text()):
        known |= {number for part in [record["note"], *record["groups"]] for number in numbers(part)}
        for value in [record["effect"], record["statistic"], record["n"]]:
            if value is not None:
                known |= {
                    n
                    for form in ("{:.2f}", "{:.3f}", "{:g}", "{:.1g}", "{:.2g}")
                    for n in numbers(form.format(abs(value)))
                }
    assert [number for number in numbers(text) if number not in known] == []


@pytest.mark.slow
def test_every_inside_probe_is_shown_or_listed(store):
    run_id = log_run(spec(), "e", items=0)
    first = log_aligned(spec(), "e", source=run_id, table=aligned_table())
    again = log_aligned(spec(), "e", source=run_id, table=aligned_table(), seed=7)
    orphan = log_aligned(spec("pissa"), "e", source="0" * 32, table=aligned_table())
    unread = log_probe(spec(), "e", source=run_id, kind="weights")  # the table of another kind
    failed = log_probe(spec(), "e", source=run_id, kind="weights", status="FAILED", seed=3)
    found = read("e")
    assert found.used == (again,)
    assert [i.run_id for i in found.duplicates] == [first]
    assert {i.run_id: i.text for i in found.left_out} == {
        orphan: "looks into no run, or base model, of those used here",
        unread: "has no layers.parquet of its kind that can be read",
    }
    assert [i.run_id for i in found.failed] == [failed]
    page = text_of(report_of("e"))
    for text in ("1 probe failed", "2 probes are left out", "1 probe was superseded by another one"):
        assert text in page


def test_the_probe_of_an_injected_model_is_shown(store):
    own = pair_spec()
    log_aligned(own, "e", source=log_injection(own, "e"), table=aligned_table())
    log_aligned(spec(variant="none"), "e", source=None, table=aligned_table(5, 0.1))
    (group,) = representation_probes.comparable_groups(read("e").alignment)
    assert [line for line, _ in group.lines()] == ["LoRA", BASE]
    assert "Alignment of translations by layer" in text_of(report_of("e"))


@pytest.mark.slow
def test_real_probes_of_a_real_run_are_read(store, tiny_model, monkeypatch):
    """Nothing invented: a run is trained, and its model, its weights and its base are probed."""
    from probes import probed
    from probes import table as logged
    from runs import plan_of, run_of

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "real")
    run_id = run_of(plan_of(tiny_model), "real").run_id
    own = probed("--run_id", run_id, "--kind", "alignment", "--items", "20", "--against", "base")
    weights = probed("--run_id", run_id, "--kind", "weights")
    base = probed("--model", tiny_model, "--kind", "alignment", "--items", "20")
    found = read("real")
    assert set(found.used) == {run.info.run_id for run in (own, weights, base)}
    assert (found.left_out, found.duplicates) == ((), ())
    (group,) = representation_probes.comparable_groups(found.alignment)
    assert [line for line, _ in group.lines()] == ["LoRA", BASE]
    tables, records = representations.make_tables(found)
    assert [table.name for table in tables] == ["translations-sw", "cka-sw", "weights"]
    values = logged(own).set_index(["measure", "layer"])["value"]
    (last,) = find(records, test="cosine/gap/raw", groups=("LoRA", "block 2"))
    assert last.effect == values["cosine/gap/raw", 2]
    (rank,) = find(records, analysis="weights", test="rank")
    assert rank.effect == pytest.approx(weights.data.metrics["update/mean_rank"])
    assert "Weight updates of training" in text_of(report_of("real"))


def test_the_share_of_the_rank_that_an_update_uses_is_a_column_of_its_run(store):
    """Claims compare it between ranks; a run without a weight probe has none."""
    for rank in (8, 16):
        own = spec(rank=rank)
        log_probe(own, "e", source=log_run(own, "e", items=0), kind="weights", table=weight_table())
    log_run(spec(rank=32), "e", items=0)
    runs = pull(client := connect(), find_experiments(client, "e"))
    weights = representation_probes.fetch(runs).weights
    joined = representation_probes.join_weights(runs.table, weights)
    stable = weights.loc[weights["measure"] == "stable_rank", "value"].mean()
    by_rank = joined.groupby("rank")[["probe/weights/stable_rank", "probe/weights/rank_use"]].mean()
    np.testing.assert_allclose(by_rank["probe/weights/stable_rank"], [stable, stable, np.nan])
    np.testing.assert_allclose(by_rank["probe/weights/rank_use"], [stable / 8, stable / 16, np.nan])
    assert representation_probes.join_weights(runs.table, weights.iloc[:0]) is runs.table
