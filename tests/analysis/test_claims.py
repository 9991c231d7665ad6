"""A claim is supported, contradicted or undecided as the truth and the size of the design demand."""

from __future__ import annotations

import re

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.claims.claims import Claim, judge, judge_all, load, records
from analysis.claims.orders import pairwise_relations, parse_order, resolve_method
from analysis.claims.verdicts import Verdict
from analysis.columns import SETTINGS
from analysis.records import dumps
from analysis.runs.language_probes import share_column
from whichlora.errors import OptionError

METHODS = ("LoRA", "DoRA", "DoRA*", "AdaLoRA", "PiSSA", "VeRA")
EQUAL = dict.fromkeys(METHODS, 0.0)
PAPER = {claim.name: claim for claim in load()}


RANKS = {"DoRA": 16, "AdaLoRA": 5, "VeRA": 256}
BLOCKS = ",".join(map(str, range(32)))


def paper(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """Return a table as runs of Table 2 have it: with variant, arm, rank, number of items and blocks."""
    if "variant" not in table:
        table = table.assign(variant=table["method"].str.extract("([A-Za-z]+)")[0].str.lower())
    usual = {
        "arm": table["method"].eq("DoRA*").map({True: "matched", False: "recommended"}),
        "rank": table["method"].map(RANKS).fillna(8),
        "train_size": 5000,
        "layers": BLOCKS,
    }
    return table.assign(**{key: value for key, value in usual.items() if key not in table}).assign(**columns)


def found_for(name: str, table: pd.DataFrame, **options: float) -> Verdict:
    return judge(PAPER[name], paper(table), **options)


def verdict(name: str, table: pd.DataFrame, **options: float) -> str:
    return found_for(name, table, **options).verdict


def test_the_papers_statements_are_all_there():
    assert {claim.outcome for claim in PAPER.values()} == {"en", "tl"}
    assert len(PAPER) == 25
    assert all(claim.says.endswith(".") and claim.source and claim.design for claim in PAPER.values())


@pytest.mark.parametrize(
    ("methods", "options", "expected"),
    [
        (EQUAL, {"seed_sd": 0.5}, "supported"),
        ({**EQUAL, "VeRA": -3.0}, {}, "contradicted"),
        (EQUAL, {"seed_sd": 3.0}, "undecided"),
        (EQUAL, {"seeds": (1,), "languages": ("sw",), "ratios": (0.1,)}, "undecided"),
    ],
)
def test_no_difference_on_the_target_language(methods, options, expected):
    found = found_for("target-no-difference", designs.table(methods, **options))
    assert found.verdict == expected, found.reason


def test_no_significant_difference_does_not_support_no_difference():
    """The paper's own argument. With seeds that differ this much the data cannot bear the claim at one point."""
    found = found_for("target-no-difference", designs.table(EQUAL, seed_sd=3.0))
    assert found.verdict == "undecided"
    assert "no significant difference" in found.reason
    assert "power 80 %" in found.reason


def test_a_wider_margin_can_support_what_a_narrow_one_leaves_open():
    table = designs.table(EQUAL, seed_sd=2.0)
    assert verdict("target-no-difference", table) == "undecided"
    assert verdict("target-no-difference", table, margin=5.0) == "supported"


def test_a_difference_that_is_real_but_within_the_margin_supports_no_difference():
    found = found_for("target-no-difference", designs.table({**EQUAL, "VeRA": -0.5}, seed_sd=0.3))
    assert found.verdict == "supported"
    assert "smaller than that" in found.reason


TRUE = {**EQUAL, "PiSSA": -3.0, "VeRA": -6.0}


@pytest.mark.parametrize(
    ("methods", "options", "expected"),
    [
        (TRUE, {"seed_sd": 0.5}, "supported"),
        ({**TRUE, "PiSSA": -6.0, "VeRA": -3.0}, {"seed_sd": 0.5}, "contradicted"),
        (EQUAL, {"seed_sd": 0.5}, "contradicted"),
        ({**TRUE, "DoRA": 3.0}, {"seed_sd": 0.5}, "contradicted"),
        (TRUE, {"seed_sd": 6.0}, "undecided"),
    ],
)
def test_the_order_on_english(methods, options, expected):
    found = found_for("english-order", designs.table(methods, **options))
    assert found.verdict == expected, found.reason


def test_an_order_with_a_method_that_was_not_run_is_undecided():
    found = found_for("english-order", designs.table({m: lead for m, lead in TRUE.items() if m != "DoRA*"}))
    told = "the design is incomplete: variant dora, arm matched, rank 8 has 0 of 3 languages with 4 ratios each"
    assert (found.verdict, found.reason) == ("undecided", told)


def named(names: dict[str, str], **who: str) -> pd.DataFrame:
    """Return the true order's table with other labels, each with its variant and arm."""
    table = paper(designs.table(TRUE, seed_sd=0.5)).assign(**who)
    return table.assign(method=table["method"].map(lambda name: names.get(name, name)))


@pytest.mark.parametrize("end", [", rank 16", " (tuned)"])
def test_labels_with_values_or_arms_are_still_the_papers_methods(end):
    """A sweep's or a tuned arm's labels go on after the method's name."""
    found = found_for("english-order", named({name: name + end for name in METHODS}))
    assert found.verdict == "supported", found.reason


def test_a_name_that_is_several_methods_says_how_to_name_one():
    table = pd.concat([named({"LoRA": f"LoRA ({arm})"}, arm=arm) for arm in ("matched", "tuned")])
    found = found_for("english-order", table)
    assert found.verdict == "undecided"
    assert "LoRA is several methods here: LoRA (matched), LoRA (tuned)" in found.reason
    assert "as LoRA (tuned) or as lora/tuned, or choose runs by where" in found.reason
    own = Claim(name="own", says="", outcome="en", test="order", arguments={"order": "lora/tuned > pissa"})
    assert judge(own, table).verdict == "supported"
    chosen = Claim(**{**vars(PAPER["english-order"]), "where": {"arm": "tuned"}, "either": ()})
    assert judge(chosen, table).verdict == "supported"


def test_names_of_methods():
    methods = {"LoRA, rank 8": ("lora", "x"), "LoRA+": ("loraplus", "x"), "DoRA*": ("dora", "matched")}
    methods |= {"DoRA (tuned)": ("dora", "tuned")}
    told = {
        name: resolve_method(name, methods) for name in ("LoRA", "lora", "LoRA+", "DoRA", "dora", "dora/matched", "x")
    }
    assert told == {
        **{"LoRA": ["LoRA, rank 8"], "lora": ["LoRA, rank 8"], "LoRA+": ["LoRA+"], "DoRA": ["DoRA (tuned)"]},
        **{"dora": ["DoRA*", "DoRA (tuned)"], "dora/matched": ["DoRA*"], "x": []},
    }


@pytest.mark.parametrize(
    ("by_ratio", "seed_sd", "helps", "hurts"),
    [
        ({0.0: 0.0, 0.01: 4.0, 0.1: 1.0, 0.5: 0.0}, 0.5, "supported", "supported"),
        ({0.0: 4.0, 0.01: 0.0, 0.1: 3.0, 0.5: 4.0}, 0.5, "contradicted", "contradicted"),
        ({0.0: 0.0, 0.01: 0.0, 0.1: 0.0, 0.5: 0.0}, 0.2, "contradicted", "contradicted"),
        ({0.0: 0.0, 0.01: 0.3, 0.1: 0.0, 0.5: 0.0}, 6.0, "undecided", "undecided"),
    ],
)
def test_target_data_helps_and_hurts(by_ratio, seed_sd, helps, hurts):
    table = designs.table(EQUAL, by_ratio=by_ratio, seed_sd=seed_sd)
    assert verdict("one-percent-helps", table) == helps
    assert verdict("more-hurts-target", table) == hurts
    assert verdict("more-hurts-english", table) == hurts


def levels(column: str, leads: dict[object, float], methods: dict[str, float] | None = None) -> pd.DataFrame:
    """Return one table with a copy of the design for each level of a column; variant and arm say who is who."""
    parts = []
    for at, (level, lead) in enumerate(leads.items()):
        part = designs.table(methods or {"LoRA": 0.0, "DoRA": 0.0}, at=at, block_sd=0)
        who = {"variant": part["method"].str.lower().str.rstrip("*"), "arm": "x"}
        if column in SETTINGS:
            who["method"] = part["method"] + f", {column} {level}"
        parts.append(part.assign(f1=part["f1"] + lead / 100, **{column: level}, **who))
    return pd.concat(parts, ignore_index=True)


def ranks(leads: dict[int, float]) -> pd.DataFrame:
    """Return the rank study; AdaLoRA's ranks are those that remain of the ranks at the start."""
    table = levels("rank", leads, dict.fromkeys(("LoRA", "DoRA*", "AdaLoRA", "PiSSA"), 0.0))
    table = paper(
        table.assign(arm="recommended").assign(arm=lambda t: t["arm"].mask(t["variant"] == "dora", "matched"))
    )
    left = table["rank"].map({8: 5, 16: 11, 32: 21})
    return table.assign(rank=table["rank"].mask(table["variant"] == "adalora", left))


@pytest.mark.parametrize(
    ("leads", "target", "english"),
    [
        ({8: 0.0, 16: -3.0, 32: 3.0}, "supported", "contradicted"),
        ({8: 0.0, 16: 3.0, 32: -3.0}, "contradicted", "contradicted"),
        ({8: 0.0, 16: -3.0}, "undecided", "undecided"),
    ],
)
def test_rank_16_dips_and_32_peaks(leads, target, english):
    table = ranks(leads)
    assert (verdict("rank-target", table), verdict("rank-english", table)) == (target, english)
    steady = ranks(dict.fromkeys((8, 16, 32), 0.0))
    within = found_for("rank-english", steady.assign(f1=0.6 + (steady["f1"] - 0.6) / 20))
    assert within.verdict == "supported", within.reason


def test_ranks_that_differ_in_more_than_the_rank_are_not_compared():
    """Alpha may follow the rank; another learning rate would be taken for the rank's doing."""
    table = ranks({8: 0.0, 16: -3.0, 32: 3.0})
    fair = table.assign(learning_rate=1e-3, alpha=2.0 * table["rank"])
    assert verdict("rank-target", fair) == "supported"
    found = found_for("rank-target", fair.assign(learning_rate=1 / fair["rank"]))
    assert found.verdict == "undecided"
    assert "no two runs differ in rank alone" in found.reason


def test_a_ratio_is_not_judged_by_runs_of_another_rank():
    """A rank that was run at one ratio only must not move the other ratio's mean."""
    plain = designs.table({"LoRA": 0.0}, ratios=(0.0, 0.01), by_ratio={0.0: 0.0, 0.01: 3.0}, seed_sd=0.3)
    plain = plain.assign(method="LoRA, rank 8")
    other = plain[plain["tl_ratio"] == 0.01].assign(method="LoRA, rank 32", f1=0.2)
    own = Claim(name="o", says="", outcome="tl", test="order", arguments={"order": "0.01 > 0", "factor": "tl_ratio"})
    assert judge(own, pd.concat([plain, other])).verdict == "supported"


LAYERS = {
    ",".join(map(str, range(32))): 0.0,
    "22,23,24,25,26,27": -4.0,
    "30,31": -8.0,
    "22,23,24,25,26,27,30,31": -3.0,
}


def test_all_layers_beat_some():
    """The table holds blocks as runs log them, the claim names them as the option does."""
    table = levels("layers", LAYERS, {"LoRA": 0.0})
    assert verdict("all-layers-target", table) == "supported"
    turned = levels("layers", {**LAYERS, "30,31": 5.0}, {"LoRA": 0.0})
    assert verdict("all-layers-english", turned) == "contradicted"


def instruct(leads: dict[object, float], **columns: object) -> pd.DataFrame:
    """Return Table 14's runs: LoRA in Urdu on two models, with 2,000 and 20,000 items."""
    parts = [
        levels("model", leads, {"LoRA": 0.0}).assign(
            train_size=size, tl_ratio=lambda t: t["tl_ratio"].replace(0.1, 1.0)
        )
        for size in (2000, 20000)
    ]
    return paper(pd.concat(parts, ignore_index=True), **columns)


def test_base_beats_instruct():
    better = instruct({"Llama-3.1-8B": 3.0, "Llama-3.1-8B-Instruct": 0.0})
    assert verdict("base-beats-instruct-target", better) == "supported"
    worse = instruct({"Llama-3.1-8B": 0.0, "Llama-3.1-8B-Instruct": 3.0})
    assert verdict("base-beats-instruct-english", worse) == "contradicted"
    assert verdict("base-beats-instruct-english", better[better["model"] == "Llama-3.1-8B"]) == "undecided"
    mixed = better.assign(f1=better["f1"] + 0.05 * (better["tl_ratio"] == 0.5))
    assert verdict("multilingual-beats-monolingual-target", mixed) == "supported"
    assert verdict("multilingual-beats-monolingual-english", mixed.assign(f1=-mixed["f1"])) == "contradicted"


def test_where_chooses_runs_by_task_and_model():
    table = designs.table({**EQUAL, "VeRA": -4.0}, seed_sd=0.5)
    assert verdict("vera-3b-target", table) == "undecided"
    small = table.assign(model="meta-llama/Llama-3.2-3B")
    assert verdict("vera-3b-target", small) == verdict("vera-3b-english", small) == "supported"
    assert (
        verdict("vera-qwen3-english", table.assign(model="Qwen3-8B-Base", f1=0.6 - table["f1"] / 2)) == "contradicted"
    )
    questions = table.assign(
        task="tydiqa", train_size=3000, language=table["language"].replace({"ur": "bn", "hi": "te"})
    )
    assert verdict("tydiqa-target", questions) == "contradicted"
    assert "task tydiqa" in found_for("tydiqa-english", table).reason


def test_what_the_paper_says_of_english_is_not_judged_on_another_source_language():
    table = designs.table({**EQUAL, "VeRA": -4.0}, seed_sd=0.5)
    german, both = table.assign(source_language="de"), table.assign(source_language="en")
    found = found_for("english-order", german)
    assert (found.verdict, found.reason) == ("undecided", "there are no runs with source English")
    assert found_for("vera-qwen3-english", german).reason.startswith("there are no runs with model *Qwen3-8B|")
    assert found_for("english-order", both) == found_for("english-order", table)
    assert verdict("target-no-difference", german) == verdict("target-no-difference", table)
    own = Claim(name="mine", says="", outcome="en", test="no_difference")
    assert judge(own, german).verdict == "contradicted"


def with_shares(table: pd.DataFrame, layers: int, slopes: dict[int, float], noise: float = 0.05) -> pd.DataFrame:
    """Return the table with the share of the target language after each block; some follow F1 within languages."""
    rng = np.random.default_rng(1)
    by_language = table["language"].map({"ur": 0.5, "sw": 0.0, "hi": -0.5, "": 0.0})  # must play no part
    columns = {
        share_column("token", "tl", layer): slopes.get(layer, 0.0) * (table["f1"] * 100 - 60) / 50
        + rng.normal(0, noise, len(table))
        + by_language
        for layer in range(layers)
    }
    return table.assign(**columns)


@pytest.mark.parametrize(
    ("slopes", "noise", "expected"),
    [
        ({30: 3.0, 31: 3.0}, 0.05, "supported"),
        ({30: -3.0, 31: 3.0}, 0.05, "contradicted"),
        ({31: 3.0}, 0.2, "undecided"),  # both layers must
    ],
)
def test_layers_that_go_with_the_score(slopes, noise, expected):
    table = designs.table(EQUAL, ratios=(0.0, 0.01, 0.5), seeds=range(1, 9))
    assert verdict("layers-target-share", with_shares(table, 32, slopes, noise)) == expected


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        ("layers: last:2", "supported", "probe/token/tl_share/28 r ="),
        ("depth: [0.96, 1]", "supported", "probe/token/tl_share/29 r ="),
        ("layers: 28-29, sign: -1", "contradicted", "r ="),
        ("layers: 10-11", "undecided", "r ="),
        ("layers: 30-31", "undecided", "layers 30-31: the model has layers 0-29"),
        ("depth: [0.01, 0.02]", "undecided", "no layer of the 30 lies at this depth"),
        ("layers: 28-29, level: sequence", "undecided", "the runs have no language probe by sequence"),
    ],
)
def test_a_claim_of_ones_own_says_which_layers_of_another_model(tmp_path, arguments, expected, says):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "claims:\n  - {name: m, says: S., outcome: tl, test: layer_correlation, "
        f"arguments: {{share: tl, {arguments}}}}}\n"
    )
    found = judge(load(path)[0], with_shares(designs.table(EQUAL), 30, {28: 3.0, 29: 3.0}))
    assert (found.verdict, says in found.reason) == (expected, True), found.reason


def test_a_claim_about_layers_needs_runs_enough_and_one_depth():
    mine = Claim(name="m", says="S.", outcome="tl", test="layer_correlation", arguments={"share": "tl", "layers": "1"})
    table = with_shares(designs.table(EQUAL), 4, {1: 3.0})
    few = table[(table["language"] == "sw") & (table["tl_ratio"] == 0.1) & (table["seed"] == 1)]
    assert judge(mine, few).reason == "there are 6 runs, and at least 8 are needed"
    other = with_shares(designs.table(EQUAL, at=1), 6, {1: 3.0}).assign(model="other")
    assert "models of 4 and 6 layers" in judge(mine, pd.concat([table, other])).reason
    assert found_for("layers-target-share", other).reason == "there are no runs with model *Llama-3.1-8B"
    assert judge(mine, designs.table(EQUAL)).reason == "the runs have no language probe by token"


def test_without_runs_everything_is_undecided_with_its_reason():
    judged = judge_all(load(), designs.table(EQUAL).iloc[:0])
    assert {found.verdict for _, found in judged} == {"undecided"}
    assert all("no runs" in found.reason for _, found in judged)


@pytest.mark.parametrize("seed_sd", [0.5, 3.0])
@pytest.mark.slow
def test_every_number_of_a_reason_is_in_a_record(seed_sd):
    table = paper(designs.table({**EQUAL, "VeRA": -1.5}, seed_sd=seed_sd, by_ratio={0.01: 1.0, 0.1: 0.5}))
    for claim, found in judge_all(load(), table):
        known = [0.001, 0.999, *designs.RATIOS]
        for record in found.evidence:
            known += [record.statistic, record.p, record.p_adjusted, record.effect, *(record.interval or ())]
        for text in re.findall(r"\d*\.\d+", found.reason) if found.evidence else ():  # else it names what is missing
            places = len(text.partition(".")[2])
            shown = {f"{abs(value):.{places}f}" for value in known if value is not None}
            assert f"{float(text):.{places}f}" in shown, (claim.name, text, found.reason)


@pytest.mark.slow
def test_verdicts_are_records_and_the_same_table_gives_the_same():
    table = paper(designs.table(EQUAL, seed_sd=3.0))
    found = records(judge_all(load(), table))
    first, *heads = [record for record in found if record.analysis == "claim"]
    assert first.n == sum(verdict.tested for _, verdict in judge_all(load(), table))
    assert [record.groups for record in heads] == [(claim.name,) for claim in load()]
    assert all(record.note.split(":")[0] in ("supported", "contradicted", "undecided") for record in heads)
    assert any(r.note.startswith("target-no-difference (primary): ") for r in found if r.analysis == "claim evidence")
    assert dumps(found) == dumps(records(judge_all(load(), table.sample(frac=1, random_state=0))))


def test_the_tested_claims_share_the_level():
    """A difference with p of about .03 is a verdict alone, and not among four claims that are tested."""
    table = designs.table({"LoRA": 0.0, "VeRA": 0.0}, outcomes=("tl",), seed_sd=1.0)
    claims = [
        Claim(name=f"c{n}", says="", outcome="tl", test="order", arguments={"order": "LoRA > VeRA"}) for n in range(4)
    ]
    p = judge(claims[0], table).evidence[0].p
    assert p is not None
    for lead in np.arange(0, 3, 0.01):
        shifted = table.assign(f1=table["f1"] + lead / 100 * (table["method"] == "LoRA"))
        verdict = judge(claims[0], shifted)
        if verdict.verdict == "supported":
            break
    assert 0.0125 < verdict.evidence[0].p < 0.05
    assert judge_all(claims[:1], shifted)[0][1].verdict == "supported"
    assert {found.verdict for _, found in judge_all(claims, shifted)} == {"undecided"}
    untestable = Claim(name="x", says="", outcome="tl", test="order", arguments={"order": "LoRA > PiSSA"})
    assert judge_all([claims[0], untestable], shifted)[0][1].verdict == "supported"


def test_a_users_file_adds_claims(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "claims:\n  - name: mine\n    says: VeRA is last.\n    outcome: tl\n    test: order\n"
        "    arguments: {order: '* > VeRA'}\n    where: {task: xnli, language: s*, tl_ratio: 0}\n"
    )
    (mine,) = load(path)
    assert mine == Claim(
        name="mine",
        says="VeRA is last.",
        outcome="tl",
        test="order",
        arguments={"order": "* > VeRA"},
        where={"task": "xnli", "language": "s*", "tl_ratio": 0},
    )
    assert judge(mine, designs.table({**EQUAL, "VeRA": -5.0}, seed_sd=0.5)).verdict == "supported"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("claims: 3", "must have a list"),
        ("- a", "must have a list"),
        ("claims: [1]", "entry 1 must be a mapping"),
        ("claims: [{name: a, says: b, outcome: tl}]", "a lacks test"),
        ("claims: [{name: a, says: b, outcome: sw, test: order}]", "allowed are en, tl"),
        ("claims: [{name: a, says: b, outcome: tl, test: ordre}]", "did you mean 'order'"),
        ("claims: [{name: a, says: b, outcome: tl, test: order}]", "needs the argument order"),
        ("claims: [{name: a, says: b, outcome: tl, test: order, arguments: {order: LoRA}}]", "must have the form"),
        ("claims: [{name: a, says: b, outcome: tl, test: no_difference, arguments: {x: 1}}]", "x is not an argument"),
        ("claims: [{name: a, says: b, outcome: tl, test: differ, wher: {}}]", "did you mean 'where'"),
        ("claims: [{name: a, says: b, outcome: tl, test: differ, where: x}]", "where must be a mapping"),
        (
            "claims: [" + ", ".join(["{name: a, says: b, outcome: tl, test: differ}"] * 2) + "]",
            "a occurs more than once",
        ),
        ("claims: [{name: a, says: b, outcome: tl, test: correlation, arguments: {columns: x}}]", "must be a list"),
        *(
            (f"claims: [{{name: a, says: b, outcome: tl, test: layer_correlation, arguments: {{{arguments}}}}}]", says)
            for arguments, says in (
                ("layers: 1", "needs the argument share"),
                ("share: hi, layers: 1", "allowed are en, tl"),
                ("share: en", "give either layers or depth"),
                ("share: en, layers: 1, depth: [0, 1]", "give either layers or depth"),
                ("share: en, layers: 3-1", "the start of a range exceeds its end"),
                ("share: en, depth: 0.5", "must be two numbers from 0 to 1"),
                ("share: en, layers: 1, level: word", "allowed are token, sequence"),
                ("share: en, layers: 1, sign: 0", "allowed are 1, -1"),
            )
        ),
        ("{", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(OptionError) as error:
        load(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_an_order_speaks_of_equals_and_of_neighbouring_levels():
    assert pairwise_relations(parse_order("A = B > C > D; A > D"), []) == [
        ("A", "=", "B"),
        ("A", ">", "C"),
        ("B", ">", "C"),
        ("C", ">", "D"),
        ("A", ">", "D"),
    ]
    assert pairwise_relations(parse_order("* > D"), ["A", "B", "D"]) == [("A", ">", "D"), ("B", ">", "D")]
