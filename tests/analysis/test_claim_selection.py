"""A claim is judged by the runs of its design, and by no others."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import designs
import numpy as np
import pandas as pd
import paper_runs
import pytest

from analysis.claims.claims import PACKAGED, Claim, judge, judge_files, load
from analysis.claims.designs import lacking, varying
from analysis.claims.selection import best_of, select
from analysis.records import NotTestable
from analysis.stats.contrasts import same_level
from analysis.stats.differences import THESE
from whichlora.errors import OptionError

CLAIMS = {claim.name: claim for claim in load()}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_of_the_paper_selects_the_runs_of_its_file_alone(name):
    """Among the runs of all the paper's designs; a file that covers two models has a claim for each."""
    claim = CLAIMS[name]
    file = paper_runs.DESIGNS / Path(re.search(r"\((\S+)\)", claim.design)[1]).name
    everything = sorted(set().union(*map(paper_runs.runs_of, paper_runs.DESIGNS.glob("*.yaml"))), key=repr)
    table = pd.DataFrame([dict(run) for run in everything]).assign(outcome="tl")
    model = re.search("Llama|Qwen", str(claim.where["model"]))[0]
    ratios = str(claim.where["tl_ratio"])
    own = {
        run
        for run in paper_runs.runs_of(file)
        if model in dict(run)["model"] and same_level("tl_ratio", dict(run)["tl_ratio"], ratios)
    }
    assert {everything[position] for position in select(table, claim.where, claim.either).index} == own


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_of_the_paper_needs_every_method_and_every_level_of_its_design(name):
    claim = CLAIMS[name]
    file = paper_runs.DESIGNS / Path(re.search(r"\((\S+)\)", claim.design)[1]).name
    runs = pd.DataFrame([dict(run) for run in paper_runs.runs_of(file)]).assign(outcome="tl")
    chosen = select(runs, claim.where, claim.either)
    assert lacking(chosen, claim.needs, claim.either) == ""
    assert {column for column in ("language", "tl_ratio", "layers", "model", "train_size") if
            chosen[column].nunique() > 1} <= set(claim.needs)  # fmt: skip
    entries = [select(chosen, conditions).index for conditions in claim.either]
    levels = [chosen.index[chosen[column] == chosen[column].iloc[0]] for column in claim.needs]
    for left_out in (*entries, *levels):
        assert "the design is incomplete" in lacking(chosen.drop(left_out), claim.needs, claim.either)
    found = judge(claim, chosen.drop(levels[0]).assign(f1=0.5, method=chosen["variant"]))
    assert (found.verdict, found.tested) == ("undecided", False)


def test_what_a_design_holds_constant():
    runs = table(alpha=16.0, train_size=lambda t: t["seed"])
    assert varying(runs, ["alpha", "epochs"]) == ""
    assert varying(runs.assign(alpha=16.0 * runs["seed"]), ["alpha"]) == ""  # each number of items has its own
    assert varying(runs.assign(alpha=runs["method"].map({"LoRA": 16.0, "DoRA": 32.0})), ["alpha"]) == (
        "the design has one alpha, and the runs have 16, 32"
    )


def table(**columns: object) -> pd.DataFrame:
    return designs.table({"LoRA": 0.0, "DoRA": 0.0}).assign(**columns)


def test_alternatives_and_further_conditions():
    runs = table(rank=8.0)
    assert set(select(runs, {"language": "ur|s*", "tl_ratio": "0.01|0.50"})["language"]) == {"ur", "sw"}
    assert set(select(runs, {"tl_ratio": "0.01 | 5e-1"})["tl_ratio"]) == {0.01, 0.5}
    either = ({"method": "LoRA", "tl_ratio": 0.1}, {"method": "DoRA", "language": "hi"})
    chosen = select(runs, {"rank": 8}, either)[lambda t: t["outcome"] == "tl"]
    assert set(chosen.loc[chosen["method"] == "LoRA", "tl_ratio"]) == {0.1}
    assert set(chosen.loc[chosen["method"] == "DoRA", "language"]) == {"hi"}
    assert select(runs, {"rank": 8, "no_such": "*"}).empty
    assert select(runs, {}, ({"no_such": 1},)).empty


def test_english_that_several_languages_share_belongs_to_each():
    """At ratio 0 it has no language; without it there would be nothing to compare 1 % with."""
    chosen = select(table(), {"language": "ur"})
    assert set(chosen.loc[chosen["outcome"] == "en", "language"]) == {"", "ur"}
    assert set(chosen.loc[chosen["outcome"] == "tl", "language"]) == {"ur"}


def alphas(best: dict[str, float]) -> pd.DataFrame:
    """Return runs of two alphas for each method, of which one validates better and the other tests better."""
    parts = []
    for alpha in (16.0, 32.0):
        part = table(alpha=alpha, variant=lambda t: t["method"].str.lower(), arm="x", learning_rate=1e-3)
        validates = part["method"].map(best) == alpha
        part["validation/tl/f1"] = np.where(validates, 0.7, 0.6)
        parts.append(part.assign(f1=np.where(validates, 0.5, 0.9), method=part["method"] + f", alpha {alpha:g}"))
    return pd.concat(parts, ignore_index=True)


def test_the_best_value_is_chosen_by_validation_for_each_variant():
    chosen = best_of(alphas({"LoRA": 16.0, "DoRA": 32.0}), ["alpha"])
    assert set(chosen["f1"]) == {0.5}
    assert len(chosen) == len(table())
    assert set(chosen["method"]) == {"LoRA", "DoRA"}
    assert chosen["alpha"].isna().all()


def test_nothing_is_chosen_by_test_scores():
    unvalidated = alphas({"LoRA": 16.0, "DoRA": 32.0}).drop(columns="validation/tl/f1")
    with pytest.raises(NotTestable, match="the best alpha cannot be chosen: runs have no validation score"):
        best_of(unvalidated, ["alpha"])
    one = unvalidated[unvalidated["alpha"] == 16]
    assert len(best_of(one, ["alpha"])) == len(one)
    claim = Claim(name="c", says="", outcome="tl", test="no_difference", best_of=("alpha",))
    assert "no validation score" in judge(claim, unvalidated).reason


def test_a_best_of_two_seeds_counts_every_run_of_the_value():
    """Seeds and languages are averaged, so that a lucky seed does not choose."""
    runs = alphas({"LoRA": 16.0, "DoRA": 16.0})
    lucky = (runs["alpha"] == 32) & (runs["seed"] == 1) & (runs["language"] == "sw")
    chosen = best_of(runs.assign(**{"validation/tl/f1": runs["validation/tl/f1"].mask(lucky, 0.8)}), ["alpha"])
    assert set(chosen["f1"]) == {0.5}


def test_the_statements_of_the_field_have_a_test_or_say_what_is_missing():
    field = load(PACKAGED["field"])
    assert len(field) == 18
    assert len({claim.name for claim in (*field, *CLAIMS.values())}) == len(field) + len(CLAIMS)
    assert all(claim.says.endswith(".") and claim.source for claim in field)
    assert {claim.name for claim in field if claim.undecided} == {
        "non-latin-scripts-forget-more",
        "last-layers-control-language",
    }
    assert all(bool(claim.test) != bool(claim.undecided) and bool(claim.design) == bool(claim.test) for claim in field)
    verdicts = [judge(claim, designs.table({"LoRA": 0.0, "DoRA": 0.0})) for claim in field]
    assert {found.verdict for found in verdicts} == {"undecided"}
    assert not any(found.tested for found in verdicts)
    retention = next(claim for claim in field if claim.name == "adapters-forget-like-full")
    runs = designs.table({"LoRA": 0.0, "Full": 0.0}).assign(variant=lambda t: t["method"].str.lower())
    assert judge(retention, runs).reason == "the runs have no test/retention/tl/f1"
    kept = runs.assign(**{"test/retention/tl/f1": 0.6 + runs["f1"] / 100})
    assert judge(retention, kept).verdict == "supported"


def test_a_tuned_variant_three_points_from_lora_is_not_near_it():
    claims = {claim.name: claim for claim in load(PACKAGED["field"])}
    for lead, near, suffices in ((-0.5, "supported", "supported"), (4.0, "contradicted", "contradicted")):
        methods = {"LoRA": 0.0, "DoRA": lead, "PiSSA": 0.0, "Full": 5.0, "MoLF": 5.0}  # the last two are no variants
        runs = designs.table(methods, outcomes=("tl",), seed_sd=0.3)
        runs = runs.assign(arm="tuned", variant=runs["method"].str.lower())
        assert judge(claims["tuned-variants-near-lora"], runs).verdict == near
        assert judge(claims["tuned-lora-suffices"], runs).verdict == suffices
    few = judge(claims["tuned-lora-suffices"], runs[runs["variant"] != "pissa"])
    assert few.reason == "the design is incomplete: 2 of 3 variants"


def test_molf_is_judged_in_six_settings_or_more():
    claim = next(claim for claim in load(PACKAGED["field"]) if claim.name == "molf-near-the-better")
    runs = designs.table({"MoLF": 0.0, "LoRA": 0.0, "Full": 0.0}, outcomes=("tl",), ratios=(0.1, 0.5), seed_sd=0.1)
    runs = runs.assign(arm="matched", variant=runs["method"].str.lower())
    assert judge(claim, runs).verdict == "supported"
    assert judge(claim, runs[runs["tl_ratio"] == 0.1]).reason == (
        "there are 3 configurations, and the claim is about 6"
    )


@pytest.mark.parametrize(
    ("selection", "expected"),
    [({"gradient": 3.0, "spectral": 3.0}, "supported"), ({"gradient": 3.0, "spectral": -3.0}, "contradicted")],
)
def test_selections_against_a_random_one(selection, expected):
    claims = {claim.name: claim for claim in load(PACKAGED["field"])}
    parts = []
    for at, (name, lead) in enumerate({**selection, "random": 0.0}.items()):
        part = designs.table({"Hybrid-LoRA": lead}, outcomes=("tl",), seed_sd=0.3, block_sd=0, at=at)
        given = f'{{"full_share": 0.1, "selection": "{name}"}}'
        parts.append(
            part.assign(variant="hybrid-lora", arm="matched", variant_options=given, method=f"Hybrid-LoRA, {name}")
        )
    found = judge(claims["hybrid-selection-beats-random"], pd.concat(parts, ignore_index=True))
    assert found.verdict == expected, found.reason


@pytest.mark.parametrize(("parameters", "expected"), [(1000, "supported"), (1300, "undecided")])
def test_modules_are_compared_with_as_many_parameters(parameters, expected):
    claim = next(claim for claim in load(PACKAGED["field"]) if claim.name == "mlp-layers-matter")
    attention = "q_proj,k_proj,v_proj,o_proj"
    sides = ((attention, 20, 0.0, parameters), (f"{attention},gate_proj,up_proj,down_proj", 8, 3.0, 1000))
    parts = [
        designs.table(
            {f"LoRA, rank {rank}, learning rate {rate:g}": lead - (rate != 1e-3)},
            **{"outcomes": ("tl",), "seed_sd": 0.3, "block_sd": 0, "at": rank},
        ).assign(
            **{"variant": "lora", "arm": "matched", "target_modules": modules, "rank": rank, "learning_rate": rate},
            **{"adapter/trainable_parameters": count, "validation/tl/f1": lambda t: t["f1"]},
        )
        for (modules, rank, lead, count), rate in itertools.product(sides, (1e-4, 1e-3, 1e-2))
    ]
    found = judge(claim, pd.concat(parts, ignore_index=True))
    assert found.verdict == expected, found.reason
    assert ("adapter/trainable_parameters is not equal" in found.reason) == (parameters != 1000)


@pytest.mark.parametrize(("kept", "expected"), [(5.0, "supported"), (-5.0, "contradicted")])
def test_runs_on_word_pairs_are_judged_beside_the_others(kept, expected):
    """Their F1 is that on a task that was not trained, and they have no other."""
    injected = designs.table(
        {"LoRA": kept, "Full": 0.0}, outcomes=("tl",), ratios=(0.0,), seeds=range(1, 9), block_sd=0
    )
    injected = injected.rename(columns={"f1": "test/retention/tl/f1"}).assign(task="align-words")
    injected = injected.assign(variant=injected["method"].str.lower(), arm="matched", adapter=injected.index.map(str))
    for others in (designs.table({"LoRA": 0.0, "DoRA": 0.0}), injected.iloc[:0]):
        found = judge_files([PACKAGED["paper"], PACKAGED["field"]], others, injected, margin=1.0, scope=THESE)
        verdicts = {claim.name: verdict for claim, verdict in found}
        assert verdicts["early-injection-keeps-zero-shot"].verdict == expected
        assert ("english-order" in verdicts) == (len(others) > 0)
        assert not verdicts["lora-equals-full-below-capacity"].tested


def test_two_files_may_have_claims_of_one_name(tmp_path):
    claim = "claims: [{name: a, says: S., outcome: tl, test: order, arguments: {order: LoRA > DoRA}}]\n"
    for name, order in (("one", "LoRA > DoRA"), ("two", "DoRA > LoRA")):
        (tmp_path / name).write_text(claim.replace("LoRA > DoRA", order))
    runs = designs.table({"LoRA": 3.0, "DoRA": 0.0}, outcomes=("tl",))
    found = judge_files([tmp_path / "one", tmp_path / "two"], runs, runs.iloc[:0], margin=1.0, scope=THESE)
    assert [verdict.verdict for _, verdict in found] == ["supported", "contradicted"]
    assert [claim.collection for claim, _ in found] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: a, says: b, outcome: tl, test: differ, design: x}", "a: x is not among the designs: none"),
        (
            "{name: a, says: b, outcome: tl, test: differ, undecided: no runs}",
            "a: has test, which a claim with undecided",
        ),
        (
            "{name: a, says: b, outcome: tl, undecided: no runs, margin: 2.0}",
            "a: has margin, which a claim with undecided",
        ),
        ("{name: a, says: b, outcome: tl, test: differ, margin: 0.0}", "greater than 0"),
        (
            "{name: a, says: b, outcome: tl, test: best, arguments: {methods: {}}}",
            "methods must name at least one language",
        ),
        ("{name: a, says: b, outcome: tl, test: best, arguments: {methods: LoRA}}", "methods must be a mapping"),
        (
            "{name: a, says: b, outcome: tl, test: measures, arguments: {order: A > B, hold: all, metrics: []}}",
            "metrics must be a list of at least one column",
        ),
        (
            "{name: a, says: b, outcome: tl, test: configurations, arguments: {order: A > B, hold: some}}",
            "hold some; allowed are all, most, all but N, or a number from 1",
        ),
        ("{name: a, says: b, outcome: tl, test: order, arguments: {order: A >= B}}", "order has >=, which the tests"),
        (
            "{name: a, says: b, outcome: tl, test: best_value, arguments: {parameter: x, factor: rank, upper: '8', "
            "lower: '4', within: 1}}",
            "within 1; must be a number above 1",
        ),
        (
            "{name: a, says: b, outcome: tl, test: configurations, arguments: {order: A > B, hold: all, of: 0}}",
            "of 0; must be a number above 0",
        ),
    ],
)
def test_a_bad_claim_is_refused(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(f"claims: [{text}]")
    with pytest.raises(OptionError) as error:
        load(path)
    assert says in str(error.value)
