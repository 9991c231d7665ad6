"""A design that is too small for a test gives a record that says so, never an error; a larger one gives a number."""

from __future__ import annotations

import json
import math

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.measures import summaries
from analysis.records import Record, dumps, find
from analysis.stats.blocked import F_TEST, PAIR_TEST, blocked
from analysis.stats.cells import cells
from analysis.stats.contrasts import contrast
from analysis.stats.differences import LIKE_THESE, differences
from analysis.stats.effects import effects
from analysis.stats.equivalence import equivalence
from analysis.stats.groupings import groupings
from analysis.stats.mixed.mixed_model import mixed_model
from analysis.stats.own_errors import own_errors
from analysis.stats.power import item_power, power
from analysis.stats.ranks import ranks
from analysis.stats.replication import replication


def grouped(table: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Group the methods by the primary analysis, as the report does."""
    return groupings(blocked(table, outcome=outcome), outcome=outcome)


def like_these(table: pd.DataFrame, *, outcome: str) -> list[Record]:
    """Compare the methods on blocks like these."""
    return differences(table, outcome=outcome, scope=LIKE_THESE, margin=1.0)


TESTS = (
    blocked,
    differences,
    effects,
    equivalence,
    grouped,
    like_these,
    mixed_model,
    own_errors,
    power,
    ranks,
    replication,
    summaries.derived,
)
FULL = designs.table({"LoRA": 0, "DoRA": 0, "VeRA": -3})
TIED = FULL.assign(f1=0.5)
BY_SEED = FULL.assign(f1=0.5 + FULL["seed"] / 100)


def part(**values: object) -> pd.DataFrame:
    """Return the rows of the full design with these values."""
    keep = np.logical_and.reduce([FULL[column].isin(wanted) for column, wanted in values.items()])
    return FULL[keep]


SMALL = {
    "nothing": FULL.iloc[:0],
    "no columns": pd.DataFrame(columns=["method", "language", "tl_ratio", "seed", "outcome", "f1"]),
    "one run": FULL[FULL["outcome"] == "tl"].iloc[:1],
    "one method": part(method=["LoRA"]),
    "one cell, one seed": part(language=["sw"], tl_ratio=[0.1], seed=[1]),
    "one seed": part(seed=[1]),
    "one cell, two seeds": part(language=["sw"], tl_ratio=[0.1], seed=[1, 2]),
    "one language": part(language=["sw"]),
    "one cell": part(language=["sw"], tl_ratio=[0.1]),
    "one method has two seeds in one cell, the other one": part(
        language=["sw"], tl_ratio=[0.1], method=["LoRA", "VeRA"]
    )
    .query("method == 'LoRA' or seed == 1")
    .query("seed < 3"),
    "two methods": part(method=["LoRA", "VeRA"]),
    "no cell in common": FULL[(FULL["method"] == "LoRA") == (FULL["language"] == "sw")].query("method != 'DoRA'"),
    "every score the same": TIED,
    "every score of a method the same": FULL.assign(f1=FULL["method"].map({"LoRA": 0.5, "DoRA": 0.5, "VeRA": 0.4})),
    "seeds differ, methods do not": BY_SEED,
    "the other outcome": FULL[FULL["outcome"] == "en"],
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__)
@pytest.mark.filterwarnings("error")
def test_a_record_comes_out_of_any_design(name, test):
    for outcome in ("en", "tl"):
        found = test(SMALL[name], outcome=outcome)
        assert found or test is summaries.derived
        json.loads(dumps(found))
        for record in found:
            assert record.outcome == outcome
            if record.note.startswith("no test: "):
                assert record.p is None
                assert len(record.note) > len("no test: ") + 10


@pytest.mark.parametrize(
    ("name", "test", "says"),
    [
        ("one method", blocked, "one method only"),
        ("one cell, one seed", blocked, "one block only; a block is a seed"),
        ("no cell in common", blocked, "share no block"),
        ("every score the same", blocked, "nothing varies"),
        ("seeds differ, methods do not", blocked, "nothing varies beyond"),
        ("nothing", blocked, "no runs"),
        ("two methods", ranks, "three methods"),
        ("two methods", own_errors, "three methods"),
        ("one cell, one seed", own_errors, "two are needed"),
        ("one method", ranks, "three methods"),
        ("every score the same", ranks, "tie in every block"),
        ("one cell, one seed", ranks, "two blocks"),
        ("one cell, one seed", replication, "no method has two runs"),
        ("one seed", power, "no cell has two seeds"),
        ("one cell, two seeds", replication, "the distances from each method's median do not vary"),
        ("no cell in common", equivalence, "no blocks in common"),
        ("one method has two seeds in one cell, the other one", power, "most cells have one seed"),
        ("one cell, one seed", equivalence, "two are needed"),
        ("every score the same", equivalence, "the same in every block"),
        ("one method", grouped, "one method only"),
        ("one method", differences, "one method only"),
        ("nothing", differences, "no runs"),
        ("one seed", differences, "one seed only"),
        ("one cell, one seed", differences, "one seed only"),
        ("one cell", like_these, "one block only"),
        ("no cell in common", differences, "share no block"),
        ("every score the same", differences, "the same in every run"),
        ("nothing", mixed_model, "no runs"),
        ("one method", mixed_model, "one method only"),
        ("one seed", mixed_model, "one seed only"),
        ("one cell", mixed_model, "one block only"),
        ("no cell in common", mixed_model, "no two methods share a block"),
        ("every score the same", mixed_model, "nothing varies"),
        ("seeds differ, methods do not", mixed_model, "the residual variance is estimated as zero"),
        ("every score of a method the same", differences, "or the difference is the same in all"),
        ("every score of a method the same", like_these, "the difference is the same in all blocks"),
        ("seeds differ, methods do not", differences, "the same in every run"),
        ("one method has two seeds in one cell, the other one", differences, "no block has two seeds in common"),
    ],
)
def test_the_reason_is_given(name, test, says):
    assert any(record.p is None and says in record.note for record in test(SMALL[name], outcome="tl"))


def test_one_seed_still_has_its_primary_test():
    """Seeds are averaged over in the primary test; without spread over seeds it stands on one run a cell."""
    found = find(blocked(SMALL["one seed"], outcome="tl"), test=F_TEST)[0]
    assert found.df == (2, 18)  # 9 blocks, and one of ratio 0
    assert found.p < 0.05
    assert any("no cell has two runs" in r.note for r in blocked(SMALL["one seed"], outcome="tl"))


def test_in_one_cell_the_seeds_are_the_blocks():
    found = blocked(SMALL["one cell"], outcome="tl")
    assert find(found, test=F_TEST)[0].df == (2, 4)
    assert "blocks: seed" in found[0].note
    able = power(SMALL["one cell"], outcome="tl")
    assert all("seeds are the blocks" in r.note for r in able if r.test == "seeds needed, blocked")
    assert find(able, test="SD over seeds")[0].df == (6,)
    assert find(able, test="minimum detectable difference, one cell")[0].n == 3


def test_missing_cells_and_unequal_seeds_are_said_and_adjusted_for():
    """A method that lacks the easy blocks must not look worse for it."""
    table = designs.table({"LoRA": 0, "DoRA": 0, "VeRA": 0}, outcomes=("tl",), seed_sd=0.1, block_sd=10)
    means = table.groupby(["language", "tl_ratio"])["f1"].mean()
    easy = means[means > means.median()].index
    in_easy = np.array([key in easy for key in zip(table["language"], table["tl_ratio"], strict=True)])
    lacks = (table["method"] == "VeRA") & in_easy
    third = (table["method"] == "DoRA") & (table["seed"] == 3) & (table["tl_ratio"] == 0)
    found = blocked(table[~lacks & ~third], outcome="tl")
    overall = find(found, test=F_TEST)[0]
    assert "missing cells: VeRA at" in overall.note
    assert "unequal seeds: 2 to 3 runs" in overall.note
    pair = find(found, test=PAIR_TEST, groups=("LoRA", "VeRA"))[0]
    assert pair.n == 6
    assert abs(pair.effect) < 0.3
    assert find(replication(table[~lacks], outcome="tl"), test="Tukey HSD", groups=("LoRA", "VeRA"))[0].effect > 3


def test_a_block_with_one_method_changes_nothing_and_is_said():
    base = FULL[FULL["outcome"] == "tl"]
    extra = base[base["method"] == "LoRA"].assign(language="bn", f1=0.99)
    one, two = (blocked(table, outcome="tl")[0] for table in (base, pd.concat([base, extra])))
    assert (one.statistic, one.df) == (pytest.approx(two.statistic), two.df)
    assert "one method only" in two.note


def test_the_primary_test_is_type_two_of_statsmodels():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    table = FULL[FULL["outcome"] == "tl"].sample(frac=0.5, random_state=1)
    means = cells(table, "tl").means
    long = means.rename_axis(index="block", columns="method").reset_index().melt(id_vars="block").dropna()
    expected = anova_lm(ols("value ~ method + block", long).fit(), typ=2)
    found = blocked(table, outcome="tl")[0]
    assert found.statistic == pytest.approx(expected.at["method", "F"])
    assert found.p == pytest.approx(expected.at["method", "PR(>F)"])


def test_on_a_complete_table_two_methods_are_compared_by_the_paired_t_test():
    from scipy.stats import ttest_rel

    table = SMALL["two methods"]
    means = cells(table, "tl").means
    expected = ttest_rel(means["LoRA"], means["VeRA"])
    found = find(blocked(table, outcome="tl"), test=PAIR_TEST)[0]
    assert found.statistic == pytest.approx(expected.statistic)
    assert (found.p, found.p_adjusted) == (pytest.approx(expected.pvalue), pytest.approx(expected.pvalue, rel=1e-6))
    interval = expected.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_english_results_of_one_adapter_count_once():
    """A caller may pass a row for each language; the adapter says that they are one result."""
    once = designs.table({"LoRA": 0, "VeRA": -3}, outcomes=("en",))
    zero = once["tl_ratio"] == 0
    thrice = pd.concat([once[~zero], *(once[zero].assign(language=name) for name in designs.LANGUAGES)])
    assert len(thrice) > len(once)
    assert [r.to_dict() for r in blocked(once, outcome="en")] == [r.to_dict() for r in blocked(thrice, outcome="en")]


def test_the_untrained_base_is_no_method():
    base = FULL[FULL["method"] == "LoRA"].assign(method="none", variant="none", f1=0.3)
    table = pd.concat([FULL.assign(variant="some"), base])
    assert blocked(table, outcome="tl")[0] == blocked(FULL, outcome="tl")[0]


def test_blocks_of_several_settings():
    other = FULL.assign(task="tydiqa", f1=FULL["f1"] - 0.2, adapter=FULL["adapter"] + " of the other task")
    found = blocked(pd.concat([FULL, other]), outcome="tl")[0]
    assert found.df == (2, 2 * 19)  # the three languages of an adapter at ratio 0 are one block
    assert found.note.startswith("blocks: setting x language x ratio")


def test_categories_are_texts():
    """Also those without a row, which a selection leaves behind."""
    chosen = FULL.astype(dict.fromkeys(("method", "language", "outcome"), "category"))
    chosen = chosen[chosen["method"] != "DoRA"]
    for test in TESTS:
        assert dumps(test(chosen, outcome="tl")) == dumps(test(SMALL["two methods"], outcome="tl"))


def test_the_order_of_the_rows_changes_nothing():
    shuffled = FULL.sample(frac=1, random_state=3)
    for test in TESTS:
        assert dumps(test(FULL, outcome="en")) == dumps(test(shuffled, outcome="en"))


def test_differences_are_points_of_the_first_minus_the_second():
    found = find(blocked(FULL, outcome="tl"), test=PAIR_TEST, groups=("LoRA", "VeRA"))[0]
    assert found.effect == pytest.approx(3, abs=1)
    assert found.interval[0] < found.effect < found.interval[1]


def test_numbers_that_are_none_are_null():
    record = Record(
        outcome="en",
        analysis="a",
        test="t",
        groups=("x",),
        p=math.nan,
        statistic=math.inf,
        df=(1, math.nan),
        n=np.int64(3),
    )
    assert json.loads(dumps([record])) == [
        {
            **dict.fromkeys(("statistic", "df", "p", "p_adjusted", "effect", "interval")),
            **{"outcome": "en", "analysis": "a", "test": "t", "groups": ["x"], "correction": "", "n": 3, "note": ""},
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"factor": "rank", "upper": "8", "lower": "16"}, "the runs have no rank"),
        ({"factor": "tl_ratio", "upper": "0.1", "lower": "0.7"}, "no runs with tl_ratio 0.7"),
    ],
)
def test_a_contrast_says_what_is_missing(arguments, says):
    found = contrast(FULL, outcome="tl", **arguments)
    assert all(record.p is None and says in record.note for record in found)


def test_a_contrast_pairs_runs_that_differ_in_the_factor_alone():
    """Methods that have one of the levels only play no part."""
    table = designs.table({"LoRA": 0, "DoRA": 0}, by_ratio={0.01: 2.0}, outcomes=("tl",), seed_sd=0.2)
    table = table[~((table["method"] == "DoRA") & (table["tl_ratio"] == 0.01))]
    table.loc[table["method"] == "DoRA", "f1"] -= 0.3
    found, *_ = contrast(table, outcome="tl", factor="tl_ratio", upper="0.01", lower="0")
    assert found.n == 3  # the seeds: at ratio 0 one adapter is scored in the three languages
    assert found.effect == pytest.approx(2.0, abs=0.3)
    assert found.p < 0.01
    between, *_ = contrast(table, outcome="tl", factor="tl_ratio", upper="0.5", lower="0.1")
    assert between.n == 9  # no adapter is shared there


def test_english_at_ratio_0_is_the_partner_of_every_language_and_one_unit():
    table = designs.table({"LoRA": 0}, by_ratio={0.5: -4.0}, outcomes=("en",), seed_sd=0.2)
    found, *_ = contrast(table, outcome="en", factor="tl_ratio", upper="0.5", lower="0")
    assert found.n == 3
    assert found.effect == pytest.approx(-4.0, abs=0.3)


def test_items_without_predictions():
    nothing = designs.items({"LoRA": 0.8}).iloc[:0]
    assert "fewer than two methods" in item_power(nothing, outcome="tl")[0].note
