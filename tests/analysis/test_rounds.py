"""Rounds of seeds: decisions after every seed, and what must not change them."""

from __future__ import annotations

import math

import designs
import numpy as np
import pandas as pd
import pytest
from drawn_scores import METHODS, scores, verdict

from analysis.records import find
from analysis.stats.differences import SAME, differences
from analysis.stats.moderated import moderated
from analysis.stats.sequential.race import LEVEL, OPEN, Race
from analysis.stats.sequential.verdict import seed_scores
from benchmarks.simulated import rounds
from whichlora.errors import OptionError


def test_states_of_a_clear_case():
    found = verdict(scores())
    assert [s.state for s in found.standings] == ["leader", "level", "dropped", "dropped", "dropped"]
    assert [s.method for s in found.standings][2:] == ["C", "D", "E"]
    assert found.finished
    assert found.next_methods == ()
    assert found["E"].runs <= found["C"].runs < found["A"].runs == found.seeds
    assert found["E"].interval[0] > 1
    assert found["E"].interval[1] > found["E"].behind > found["E"].interval[0]
    assert found["A"].interval == found["B"].interval == (0.0, 1.0)
    assert found["E"].shows_worse is None


def test_before_the_first_look_all_run():
    for seeds in (0, 1, 2):
        found = verdict(scores().iloc[:seeds])
        assert set(found.next_methods) == set(METHODS)
        assert not found.finished
        assert all(s.interval == (0.0, math.inf) for s in found.standings)


@pytest.mark.parametrize("seeds", [3, 5, 8, 14])
def test_what_must_not_matter_does_not(seeds):
    """The order of rows and columns, a constant, the effects of seeds, and how often one has looked before."""
    table = scores().iloc[:seeds]
    found = verdict(table)
    by_name = {s.method: s for s in found.standings}
    rng = np.random.default_rng(2)
    shuffled = table.iloc[rng.permutation(seeds), rng.permutation(5)]
    assert verdict(shuffled) == found
    for moved in (table + 100, table.add(rng.normal(0, 10, seeds), axis=0)):
        for standing in verdict(moved).standings:
            expected = by_name[standing.method]
            assert standing.state == expected.state
            assert standing.interval == pytest.approx(expected.interval)
            assert (standing.runs, standing.continues) == (expected.runs, expected.continues)
    for earlier in range(seeds):
        verdict(table.iloc[:earlier])
    assert verdict(table) == found


def test_decisions_are_final_and_scores_after_leaving_do_not_count():
    table = scores()
    whole = verdict(table)
    for seeds in range(3, 14):
        part = verdict(table.iloc[:seeds])
        for standing in part.standings:
            if standing.state == "dropped":
                assert whole[standing.method] == standing
        stopped = [s.method for s in part.standings if not s.continues]
        later = table.copy()
        later.loc[later.index[seeds:], stopped] = np.nan
        assert verdict(later) == whole


def test_a_seed_waits_for_all_methods_that_run():
    table = scores(6)
    table.loc[4, "A"] = np.nan
    found = verdict(table)
    assert found.seeds == 3
    assert found.missing == (("A", 4),)
    assert verdict(table.iloc[:3]).standings == found.standings
    assert verdict(scores(14, means=(0, 0), sd=2), max_seeds=5).seeds == 5


def test_more_families_and_more_confidence_decide_later():
    table = scores(20)
    runs = [sum(s.runs for s in verdict(table, **o).standings) for o in ({}, {"families": 3}, {"confidence": 0.99})]
    assert runs[0] < runs[1] < runs[2]
    assert verdict(table, families=5).standings == verdict(table, confidence=0.99).standings


def test_what_can_be_shown_at_the_last_seed():
    """The power at the last look alone: 2,000 races of a method that is so much worse, of known variance."""
    table = pd.DataFrame({"A": [0.0, 0.0, 0.0, 0.0], "B": [-1.0, 1.0, -1.0, 1.0]}, index=range(4))
    found = verdict(table, max_seeds=10)
    sd = table["B"].std(ddof=1)
    needed = found["B"].shows_worse
    rng = np.random.default_rng(7)
    race = Race(2000, 2, most=10, margin=1.0, alpha=0.05)
    for _ in range(10):
        race.look(np.stack([np.zeros(2000), rng.normal(-needed, sd, 2000)], axis=1))
    assert 0.8 < (race.below[:, 0, 1] > 1).mean() < 0.87  # earlier looks add some
    assert 0 < found["B"].shows_level < needed
    fewer = verdict(table, max_seeds=10, affordable=6)["B"]
    assert fewer.shows_worse > needed
    assert fewer.shows_level > found["B"].shows_level
    assert verdict(table, max_seeds=10, affordable=12) == found
    assert verdict(table, max_seeds=10, affordable=2)["B"].shows_worse is None


def test_a_method_that_collapses_is_not_level_and_leaves_in_the_end():
    table = scores(20, means=(0, 0, -4), sd=0.3)
    early = verdict(table.iloc[:14])
    assert early.finished
    failing = table.copy()
    failing.loc[[2, 4, 5, 6, 8], "B"] -= 30
    found = verdict(failing, collapsed=failing < 40)
    assert found["B"].state == "dropped"
    assert found["B"].unreliable
    assert found["B"].interval[1] == math.inf
    assert found["A"].state == "leader"
    assert found.finished
    race = Race(1, 2, most=20, margin=1.0, alpha=0.05)
    for row in table[["A", "B"]].to_numpy()[:12]:
        race.look(row[None])
    assert (race.state == LEVEL).all()
    race.running[:] = True
    race.look(np.array([[60.0, 30.0]]), np.array([[False, True]]))
    assert race.state[0, 1] == OPEN
    assert race.bounds()[1][0, 1] > 1


def test_methods_without_variation_stay_open():
    table = scores(10)[["A"]].assign(B=lambda t: t["A"])
    assert [s.decided for s in verdict(table).standings] == [False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "margin=0: must be a number of points above 0"),
        ({"margin": math.nan}, "margin=nan: must be a number of points above 0"),
        ({"confidence": 95}, "confidence=95: must be between 0.5 and 1, such as 0.95"),
        ({"max_seeds": 2}, "max_seeds=2: must be at least 3, the first number that is judged"),
        ({"families": 0}, "families=0: must be at least 1"),
    ],
)
def test_invalid_options_are_refused_in_one_line(options, message):
    with pytest.raises(OptionError) as error:
        verdict(scores(), **options)
    assert str(error.value) == message


def test_invalid_tables_are_refused_in_one_line():
    with pytest.raises(OptionError, match="methods=A: must be at least two"):
        verdict(scores()[["A"]])
    with pytest.raises(OptionError, match="methods=A: must not occur twice"):
        verdict(scores()[["A", "A"]])
    with pytest.raises(OptionError, match="primary=xx: must be one of en, tl, mean"):
        seed_scores(pd.DataFrame(), primary="xx")


def test_scores_by_seed_are_means_over_what_an_adapter_counts_for():
    table = designs.table(dict.fromkeys("ABC", 0.0), ratios=(0.0, 0.5))
    found = seed_scores(table, primary="tl")
    assert found.shape == (table["seed"].nunique(), 3)
    one = table[(table["method"] == "A") & (table["seed"] == 1) & (table["outcome"] == "tl")]
    zero, half = (100 * one.loc[one["tl_ratio"] == ratio, "f1"] for ratio in (0.0, 0.5))
    assert found.loc[1, "A"] == pytest.approx((zero.mean() + half.sum()) / 4)  # one adapter at ratio 0, three at 0.5
    both = seed_scores(table, primary="mean")
    assert both.loc[1, "A"] == pytest.approx((found.loc[1, "A"] + seed_scores(table, primary="en").loc[1, "A"]) / 2)
    lacking = table[
        ~((table["method"] == "A") & (table["seed"] == 1) & (table["tl_ratio"] == 0.5) & (table["language"] == "sw"))
    ]
    assert np.isnan(seed_scores(lacking, primary="tl").loc[1, "A"])
    some = seed_scores(table, primary="tl", languages=["sw"])
    assert some.loc[1, "A"] == pytest.approx(100 * one.loc[one["language"] == "sw", "f1"].mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["one just within, four losers", "one just beyond, four losers", "two methods, one just beyond"]
)
def test_wrong_decisions_are_rare_at_the_margin(name):
    """2,000 draws in docs/rounds.md; here 600."""
    found = rounds.rates(rounds.EDGES[name], 600, 0)
    assert found["false drop"] + found["false level"] <= 0.05
    assert found["coverage"] >= 0.94


def test_the_fixed_design_of_the_simulation_is_that_of_the_report():
    setting = rounds.Setting(means=(0, 0, -2, -3, -4, -5))
    drawn = setting.draw(np.random.default_rng(1), 3, 8)
    pairs = np.stack(np.triu_indices(6, 1), axis=1)
    effect, error, df, _ = moderated((drawn[:, pairs[:, 0]] - drawn[:, pairs[:, 1]])[:, :, None, :])
    level = rounds.by_pairs(drawn.mean(axis=2), pairs, effect, error, df)
    for values, found in zip(drawn, level, strict=True):
        rows = [
            {"method": f"m{m}", "language": "sw", "tl_ratio": 0.5, "seed": s, "outcome": "tl", "f1": (60 + value) / 100}
            for (m, s), value in np.ndenumerate(values)
        ]
        same = find(differences(pd.DataFrame(rows), outcome="tl", margin=1.0), test=SAME)
        best = f"m{values.mean(axis=1).argmax()}"
        expected = {best} | {n for r in same if best in r.groups and (r.p_adjusted or 0) < 0.05 for n in r.groups}
        assert {f"m{m}" for m in np.flatnonzero(found)} == expected
