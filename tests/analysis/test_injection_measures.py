"""Runs of lexical injection are reported from what they logged, alone or beside runs of prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import log_design
from synthetic_pairs import RETAINED, log_injection, pair_spec
from test_report import numbers, report_of, text_of

from analysis import analyze
from analysis.measures.lexical_injection import injection_records
from analysis.records import find
from analysis.runs.pull import pull
from analysis.runs.tidy import Runs
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments


def pulled(experiment: str) -> Runs:
    client = connect()
    return pull(client, find_experiments(client, experiment))


def log_grid(experiment: str, *, pool_layers: tuple[int, int] = (1, 1)) -> list[str]:
    """Two ranks, two languages, three seeds: the gap rises by .05 with rank 16 alone, which loses .10 of F1."""
    return [
        log_injection(
            pair_spec(rank=rank, language=language, seed=seed, pool_layer=layer),
            experiment,
            rise=0.05 if rank == 16 else 0.0,
            lost=0.1 if rank == 16 else 0.0,
        )
        for rank, layer in zip((4, 16), pool_layers, strict=True)
        for language in ("sw", "tr")
        for seed in (1, 2, 3)
    ]


def test_a_run_of_word_pairs_is_a_result_and_its_values_are_those_it_logged(store):
    run_id = log_injection(pair_spec(), "e", rise=0.02, lost=0.05)
    found = pulled("e")
    assert not found.design.incomplete
    assert (found.design.used, found.design.injected) == ((), (run_id,))
    assert found.table.empty
    (row,) = found.injected.to_dict("records")
    assert (row["method"], row["pool_layer"], row["retained"]) == ("LoRA", "1", "xnli")
    m = connect().get_run(run_id).data.metrics
    records = injection_records(found.injected)
    for pairs in ("trained", "control"):
        for place in ("pooled", "output"):
            for measure in ("cosine/translation/raw", "cosine/random/raw", "cosine/gap/centred", "p1/to/centred"):
                for when in ("base", "test"):
                    name = f"{when}/{pairs}/{place}/{measure}"
                    (told,) = find(records, test=name, groups=("LoRA", "sw"))
                    assert told.effect == m[name]
            name = f"paired/{pairs}/{place}/cosine/gap/centred"
            (test,) = find(records, test=name)
            assert (test.statistic, test.p, test.effect) == tuple(m[f"{name}/{x}"] for x in ("t", "p", "difference"))
            assert test.interval == (m[f"{name}/low"], m[f"{name}/high"])
            assert (test.n, test.p_adjusted) == ({"trained": 200, "control": 63}[pairs], test.p)


def test_a_run_without_its_similarities_is_incomplete(store):
    lost = log_injection(pair_spec(), "e", without=("gain/control",))
    log_injection(pair_spec(seed=2), "e")
    assert [(i.run_id, i.text) for i in pulled("e").design.incomplete] == [(lost, "lacks gain/control")]


def test_what_differs_between_injections_is_part_of_the_method(store):
    """Block of the loss as well: `injection-xnli.yaml` has full fine-tuning with either."""
    for variant, layer in (("lora", 1), ("full", 1), ("full", 29)):
        log_injection(pair_spec(variant, pool_layer=layer, layers=(0, 1) if variant == "lora" else ()), "e")
    log_injection(pair_spec("lora", pool_layer=1, scoring="layer-1-first-token", layers=(0, 1)), "e")
    found = pulled("e").injected
    assert set(found["setting"]) == {"align-words, smollm2-135m"}
    assert set(found["method"]) == {
        "LoRA, pool layer 1",
        "LoRA, pool layer 1 with the first token",
        "full fine-tuning, pool layer 1",
        "full fine-tuning, pool layer 29",
    }


def test_p_is_adjusted_for_the_runs(store):
    log_grid("e")
    records = [
        r for r in injection_records(pulled("e").injected) if r.test == "paired/control/pooled/cosine/gap/centred"
    ]
    assert len(records) == 12
    least = min(records, key=lambda r: r.p or 1.0)
    assert least.p_adjusted == pytest.approx(12 * (least.p or 0.0))
    apart = {r.groups[0] for r in records if (r.p_adjusted or 1.0) < 0.05}
    assert apart == {"LoRA, rank 16"}


def test_methods_are_compared_by_the_rise_and_by_what_they_retain(store):
    log_grid("e")
    records = injection_records(pulled("e").injected)
    for place in ("at the loss", "of the output"):
        (pair,) = find(records, analysis=f"injection, rise of the gap {place}", test="Tukey on method x block")
        assert pair.groups == ("LoRA, rank 16", "LoRA, rank 4")
        assert pair.effect == pytest.approx(5, abs=2)  # hundredths
    for outcome in ("en", "tl"):
        (pair,) = find(records, analysis="injection, retained F1", outcome=outcome, test="Tukey on method x block")
        assert pair.effect == pytest.approx(-10, abs=1)
        (lost,) = find(records, analysis="injection, forgotten", outcome=outcome, groups=("LoRA, rank 16",))
        assert lost.effect == pytest.approx(10, abs=1)


def test_similarities_of_unlike_blocks_are_not_compared(store):
    log_grid("e", pool_layers=(1, 5))
    records = injection_records(pulled("e").injected)
    (why,) = find(records, analysis="injection, rise of the gap at the loss")
    assert why.note.startswith("no test: the loss is on several blocks")
    assert find(records, analysis="injection, rise of the gap of the output", test="Tukey on method x block")


def test_an_experiment_of_injections_alone_has_a_report(store):
    ids = log_grid("e")
    folder = report_of("e")
    page = text_of(folder)
    assert "12 runs of lexical injection with 12 adapters: 2 methods, 2 languages, 3 seeds." in page
    assert "Mean F1, points." not in page
    assert "Claims of the paper" not in page
    assert "no test of the methods can be made: there are no runs" not in page
    assert "(a rise in 6 and a fall in 0 of 6 runs, p < .05)" in page
    assert "(a rise in 0 and a fall in 0 of 6 runs, p < .05)" in page
    assert re.search(
        r"F1 on xnli in English, not trained: 62\.0 to 5[12]\.\d\. F1 on xnli in the target language", page
    )
    assert sorted(json.loads((folder / "sources.json").read_text())["runs"]) == sorted(ids)
    table = pd.read_csv(folder / "tables" / "injection-runs.csv").set_index(["language", "method", "metric"])["mean"]
    assert table["sw", "LoRA, rank 4", "base/retention/en/f1"] == pytest.approx(100 * RETAINED["en"])
    pairs = pd.read_csv(folder / "tables" / "injection-pairs.csv")
    assert len(pairs) == 12 * 2 * 2 * 2
    assert (folder / "tables" / "injection-pairs.tex").read_text().count(r"$\rightarrow$") > 10


@pytest.mark.slow
def test_an_experiment_of_both_has_both(store):
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], languages=("sw",), ratios=(0.5,), items=0)
    log_grid("e")
    page = text_of(report_of("e"))
    assert (
        "6 runs with 6 adapters: 2 methods, 1 target language, 1 ratio, 3 seeds. 12 runs of lexical injection" in page
    )
    assert "In English no difference" in page or "In English the methods differ" in page
    html = Path("out/report.html").read_text()
    assert html.index('<h2 id="claims"') < html.index('<h2 id="injection"') < html.index('<h2 id="layers"')
    scores = html[html.index('<h2 id="scores"') : html.index('<h2 id="tests"')]
    assert "align-words" not in scores
    assert "The design is complete: every method with a result has every language, ratio and seed." in page


def test_every_number_of_the_section_is_in_the_statistics(store):
    log_grid("e")
    folder = report_of("e")
    text = text_of(folder)
    text = text[text.index("Lexical injection An adapter") : text.rindex("Languages of the layers")]
    text = re.sub(r"arXiv [\d.]+|p < .05|margin of .4|\d+ results|P@1|smollm2-135m|LoRA, rank \d+| 0-1 1 ", " ", text)
    known = {*map(str, range(13)), "95", "10,000"}  # counts of runs, of CIs, a bound of statistics
    for record in json.loads((folder / "statistics.json").read_text()):
        known |= {number for part in [record["note"], record["test"]] for number in numbers(part)}
        values = [record["effect"], record["statistic"], record["p"], record["p_adjusted"], record["n"]]
        for value in [*values, *(record["df"] or ()), *(record["interval"] or ())]:
            if value is not None:
                for form in ("{:.0f}", "{:.1f}", "{:.2f}", "{:.3f}", "{:,.0f}", "{:g}", "{:.1g}", "{:.2g}"):
                    known |= set(numbers(form.format(abs(value))))
    told = [number for number in numbers(text) if number not in known and number not in ("4", "16")]
    assert told == []
    assert len(numbers(text)) > 100


def test_untrained_runs_are_no_method_of_injection(store):
    nothing = {"rank": None, "layers": (), "epochs": None, "batch_size": None}
    log_injection(pair_spec("none", **nothing), "e", without=("paired/",))
    log_injection(pair_spec(), "e")
    page = text_of(report_of("e"))
    assert "2 runs of lexical injection with 1 adapter: 1 method" in page
    log_injection(pair_spec("none", **nothing), "f", without=("paired/",))
    assert "1 run of lexical injection with 0 adapters" in text_of(report_of("f"))


def test_claims_of_ones_own_are_answered_without_f1(store):
    log_injection(pair_spec(), "e")
    Path("mine.yaml").write_text(
        'claims:\n  - {name: a, says: VeRA is last., outcome: tl, test: order, arguments: {order: "* > VeRA"}}\n'
    )
    page = text_of(report_of("e", "--claims", "mine.yaml"))
    assert "? not judged VeRA is last." in page
    assert "One percent of target-language items helps" not in page


def test_neither_kind_of_run_is_refused(store, capsys):
    log_injection(pair_spec(), "e", without=("gain/",))
    assert analyze.main(["--experiment", "e"]) == 2
    assert "has no finished run to analyse (1 lacking a required value)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_run_of_injection_is_read(store, tiny_model):
    """Nothing invented: what the project logs is what the report reads."""
    from runs import PAIRS, plan_of, run_of

    result = run_of(plan_of(tiny_model, **PAIRS, retention="atlas-nli", retention_size=9), "real")
    found = pulled("real")
    assert found.design.injected == (result.run_id,)
    assert found.design.synthetic == ("atlas-nli",)
    records = injection_records(found.injected)
    (test,) = find(records, test="paired/control/output/cosine/gap/centred")
    assert test.n == 12
    assert test.p == pytest.approx(result.metrics["paired/control/output/cosine/gap/centred/p"])
    (after,) = find(records, test="test/retention/en/f1", groups=("LoRA", "sw"))
    assert after.effect == pytest.approx(100 * result.metrics["test/retention/en/f1"])
    page = text_of(report_of("real"))
    assert "F1 on atlas-nli in English, not trained" in page
    assert np.isfinite([r.effect for r in records if r.effect is not None]).all()
