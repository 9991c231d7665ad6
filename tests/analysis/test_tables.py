"""The paper's tables, in four forms."""

from __future__ import annotations

import dataclasses
import io
import math

import pandas as pd
import pytest
from synthetic import log_design, log_run, spec

from analysis.report.page import results_csv
from analysis.runs.adapter_sizes import unadapted_note
from analysis.runs.pull import pull
from analysis.tables import formats, paper
from whichlora.csv_text import to_csv
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments


def tables_of(experiment: str) -> tuple[dict[str, formats.Table], list]:
    client = connect()
    table = pull(client, find_experiments(client, experiment)).table
    made, records = paper.make_tables(table)
    return {one.name: one for one in made}, records


def shown(table: formats.Table) -> dict[tuple[str, ...], tuple[formats.Cell, ...]]:
    return {tuple(c[0].text for c in row[: table.labels]): row[table.labels :] for row in table.rows}


def test_f1_shows_means_spreads_best_and_second(store):
    scores = {"lora": [0.90, 0.92], "dora": [0.93, 0.95], "vera": [0.5, 0.5], "none": [0.99, 0.99]}
    for variant, values in scores.items():
        for seed, f1 in enumerate(values):
            log_run(spec(variant, seed=seed), "e", items=0, f1={"en": f1, "tl": 1 - f1})
    made, records = tables_of("e")
    rows = shown(made["f1"])
    assert rows["sw", "LoRA"][0] == (
        formats.Part("91.0 ± 1.4", formats.SECOND),
        formats.Part("9.0 ± 1.4", formats.SECOND),
    )
    assert rows["sw", "DoRA*"][0] == (formats.Part("94.0 ± 1.4", formats.BEST), formats.Part("6.0 ± 1.4"))
    assert rows["sw", "VeRA"][0][1] == formats.Part("50.0 ± 0.0", formats.BEST)
    assert rows["sw", "base model"][0][0].rank == 0  # what was not trained does not compete
    assert made["f1"].header == ("language", "method", "50 %")
    (record,) = [r for r in records if r.outcome == "en" and r.groups[0] == "LoRA"]
    assert record.effect == pytest.approx(91)
    assert record.statistic == pytest.approx(math.sqrt(2))
    assert record.n == 2


def test_the_best_floor_stands_below_the_methods_and_does_not_compete(store):
    for seed in (1, 2):
        for variant in ("lora", "dora"):
            more = {"floor/en/overlap": 0.6 + seed / 10, "floor/en/majority": 0.95, "floor/tl/majority": 0.3}
            log_run(spec(variant, seed=seed), "e", items=0, f1={"en": 0.9, "tl": 0.8}, more=more)
    made, records = tables_of("e")
    rows = shown(made["f1"])
    assert list(rows)[-1] == ("sw", "best floor")
    assert rows["sw", "best floor"][0] == (formats.Part("95.0 ± 0.0"), formats.Part("70.0 ± 0.0"))
    assert rows["sw", "LoRA"][0][0].rank == formats.BEST
    assert "The best floor is the best shallow method" in made["f1"].caption
    (floor,) = [r for r in records if r.outcome == "tl" and r.groups[0] == "best floor"]
    assert (floor.effect, floor.n) == (pytest.approx(70), 2)  # the runs of one mixture share it


def test_a_variant_outside_the_catalogue_stands_under_its_name_above_the_base_model(store):
    for variant in ("none", "lora-b", "lora"):
        log_run(spec(variant), "e", items=0)
    rows = shown(tables_of("e")[0]["f1"])
    assert [method for _, method in rows] == ["LoRA", "lora-b", "base model", "best floor"]


def test_what_is_printed_alike_is_marked_alike(store):
    for variant, f1 in (("lora", 0.90001), ("dora", 0.90002), ("vera", 0.8)):
        log_run(spec(variant), "e", items=0, f1={"en": f1, "tl": f1})
    rows = shown(tables_of("e")[0]["f1"])
    assert [rows["sw", m][0][0].rank for m in ("LoRA", "DoRA*", "VeRA")] == [
        formats.BEST,
        formats.BEST,
        formats.SECOND,
    ]
    assert "One seed a cell" in tables_of("e")[0]["f1"].caption


def test_a_missing_cell_is_a_dash(store):
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1,), items=0)
    log_run(spec("dora", language="ur"), "e", items=0)
    rows = shown(tables_of("e")[0]["f1"])
    assert rows["sw", "DoRA*"] == ((formats.Part("–"), formats.Part("–")),) * 2
    assert rows["ur", "DoRA*"][1][1].text != "–"


def test_english_of_a_shared_adapter_stands_in_every_language(full):
    rows = shown(tables_of("full")[0]["f1"])
    assert rows["sw", "LoRA"][0][0] == rows["ur", "LoRA"][0][0]
    assert rows["sw", "LoRA"][0][1] != rows["ur", "LoRA"][0][1]


def test_parameters_efficiency_and_hyperparameters(full):
    made, records = tables_of("full")
    assert shown(made["parameters"])["VeRA", "q_proj,v_proj", "0-29"][1] == formats.cell("209,280")
    assert made["efficiency"].header == ("method", "seconds", "items/s", "host MiB, peak")
    assert "No GPU figures" in made["efficiency"].caption
    assert shown(made["efficiency"])["VeRA",][0][0].rank == formats.BEST
    (seconds,) = [r for r in records if r.test == "train/seconds" and r.groups[0] == "VeRA"]
    assert seconds.n == 9  # adapters, not the 12 runs that they serve
    hyper = made["hyperparameters"]
    vera = shown(hyper)["VeRA", "matched"]
    assert dict(zip(hyper.header[2:], vera, strict=True))["rank"] == formats.cell("256")


def test_what_no_adapter_reaches_stands_below_the_parameters():
    text = "mlp.experts.down_proj (29.5%)"
    note = unadapted_note(pd.DataFrame({"method": ["LoRA", "DoRA", "base"], "not_adapted": [text, text, None]}))
    assert note == f"Without an adapter (share of the blocks' weights): {text}."
    assert unadapted_note(pd.DataFrame({"method": ["LoRA"]})) == ""


def test_gpu_figures_are_shown_where_there_are_any(store):
    for variant in ("lora", "vera"):
        log_run(spec(variant), "e", items=0, more={"gpu/energy_j": 1000.0, "gpu/temperature_mean_c": 61.25})
    made = tables_of("e")[0]["efficiency"]
    assert made.header[3:5] == ("GPU °C", "GPU J")
    assert "No GPU" not in made.caption


def test_settings_have_tables_of_their_own(store):
    log_run(spec(), "e", items=0)
    log_run(spec(model="m2", model_digest="2"), "e", items=0)
    assert {"f1-1-atlas-nli-m2", "f1-2-atlas-nli-smollm2-135m"} <= set(tables_of("e")[0])


def test_means_over_languages_are_taken_within_seeds(store):
    for seed, values in ((1, {"sw": 0.5, "ur": 0.7}), (2, {"sw": 0.6, "ur": 0.8}), (3, {"sw": 0.9})):
        for language, f1 in values.items():
            log_run(spec(language=language, seed=seed), "e", items=0, f1={"en": 0.9, "tl": f1})
            log_run(spec("vera", language=language, seed=seed), "e", items=0, f1={"en": 0.9, "tl": f1 / 2})
    made, records = tables_of("e")
    rows = shown(made["f1-means"])
    assert made["f1-means"].header == ("method", "English", "Target language")
    assert rows["LoRA",] == ((formats.Part("90.0 ± 0.0", formats.BEST),), (formats.Part("65.0 ± 7.1", formats.BEST),))
    assert rows["VeRA",][1] == (formats.Part("32.5 ± 3.5", formats.SECOND),)
    (record,) = [
        r for r in records if r.test == "F1, mean over languages" and r.groups[0] == "LoRA" and r.outcome == "tl"
    ]
    assert (record.effect, record.n) == (pytest.approx(65), 2)  # seed 3 has one language


def test_means_over_languages_are_of_one_ratio(full):
    assert "f1-means" not in tables_of("full")[0]


def test_the_best_alpha_is_that_of_the_validation_items(store):
    validation = {16: 0.6, 32: 0.8, 64: 0.7}
    for alpha, f1 in validation.items():
        for seed in (1, 2):
            scores = {"validation/en/f1": f1 + seed / 50, "validation/tl/f1": f1 - 0.2}
            test = {"en": 1 - f1, "tl": 1 - f1}
            log_run(spec(rank=16, alpha=float(alpha), seed=seed), "e", items=0, f1=test, more=scores)
    log_run(spec(rank=8), "e", items=0, more={"validation/en/f1": 0.9, "validation/tl/f1": 0.9})
    table = tables_of("e")[0]["hyperparameters-alpha"]
    assert table.header == ("method", "rank", "alpha 16", "alpha 32", "alpha 64", "best")
    assert shown(table) == {
        ("LoRA", "16"): (
            (formats.Part("51.5 ± 0.7"),),
            (formats.Part("71.5 ± 0.7", formats.BEST),),
            (formats.Part("61.5 ± 0.7"),),
            formats.cell("32"),
        )
    }


TABLE = formats.Table(
    name="t",
    title="T & co.",
    caption="100 % <b>",
    header=("method", "F1"),
    rows=((formats.cell("DoRA*_x"), (formats.Part("1 ± 2", formats.BEST), formats.Part("3", formats.SECOND))),),
    labels=1,
    numbers=pd.DataFrame({"method": ["DoRA*"], "mean": [1 / 3]}),
)


def test_markdown():
    assert r"| DoRA\*_x | **1 ± 2** / <u>3</u> |" in formats.markdown(TABLE)


def test_latex():
    text = formats.latex(TABLE)
    assert r"DoRA*\_x & \textbf{1 $\pm$ 2} / \underline{3} \\" in text
    assert r"\caption{T \& co. 100 \% <b>}" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_csv_keeps_every_digit():
    assert pd.read_csv(io.StringIO(formats.csv(TABLE)))["mean"][0] == 1 / 3


def test_html_is_escaped_and_well_formed():
    import xml.etree.ElementTree as ET

    tree = ET.fromstring(formats.to_html(TABLE))
    assert tree.find(".//strong").text == "1 ± 2"
    assert tree.find(".//u").text == "3"
    assert "100 % <b>" in "".join(tree.find("figcaption").itertext())


HOSTILE = "<img src=x onerror=alert(1)>|a\nb\r`c` [d](javascript:e) __f__ &lt; $g$ \\h"


def hostile(name: str = HOSTILE) -> formats.Table:
    """A table with a name from elsewhere in its title, its caption, its header and a row."""
    return dataclasses.replace(
        TABLE,
        title=name,
        caption=name,
        header=(name, "F1"),
        rows=((formats.cell(name), formats.cell("1")),),
        numbers=pd.DataFrame({"method": [name], "mean": [-0.5]}),
    )


def test_names_are_text_in_markdown():
    text = formats.markdown(hostile())
    assert "<img" not in text
    assert text.count("\n") == 5
    assert r"&lt;img src=x onerror=alert(1)&gt;\|a b \`c\` \[d\](javascript:e) " in text
    assert r" \_\_f\_\_ &amp;lt; $g$ \\h |" in text


def test_names_neither_break_nor_command_latex():
    text = formats.latex(hostile())
    assert text.count("\n") == formats.latex(TABLE).count("\n")
    assert r"a b `c` [d](javascript:e) \_\_f\_\_ \&lt; \$g\$ \textbackslash{}h & 1 \\" in text
    assert "\n{}[x] & 1" in formats.latex(hostile("[x]"))  # \\[x] is a distance, and \\* forbids a page break
    assert "\n{}*x & 1" in formats.latex(hostile("*x"))


@pytest.mark.parametrize("formula", ["=1+1", "+1+a", "-1+a", "@a", "\t=1", "\r=1", "\n=1", " =1", "＝1", "-"])
def test_cells_are_no_formulas(formula):
    text = formats.csv(hostile(formula))
    shown = "".join(" " if character.isspace() else character for character in formula)
    assert text.splitlines() == ["method,mean", f"'{shown},-0.5"]


def test_numbers_and_other_texts_of_a_csv_stay_as_they_are():
    columns = {"a": ["-0.5", "+1e-4", "a-b", "", None], "b": [-1, 2, 3, 4, 5], "c": [None, -1.5, "=x", True, 0]}
    table = pd.DataFrame(columns)
    assert to_csv(table) == "a,b,c\n-0.5,-1,\n+1e-4,2,-1.5\na-b,3,'=x\n,4,True\n,5,0\n"


def test_results_of_a_hostile_run_are_one_line_each():
    table = pd.DataFrame({"variant": ["=cmd|' /C calc'!A0", "a\nb"], "f1": [0.5, -0.5], "artifact_uri": ["x", "y"]})
    assert results_csv(table) == "variant,f1\n'=cmd|' /C calc'!A0,0.5\na b,-0.5\n"


def test_all_forms_are_written(tmp_path):
    formats.write(TABLE, tmp_path / "tables")
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {"t.md", "t.tex", "t.csv", "t.html"}
