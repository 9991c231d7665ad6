"""Leaving out a run or a seed gives what the whole analysis gives without it, and what decides is named."""

from __future__ import annotations

import designs
import pandas as pd
import pytest

from analysis.evidence import headline
from analysis.records import Record, find
from analysis.report import robustness
from analysis.robustness.influence import COUNT, RUN, SEED, influence
from analysis.stats.best import within_margin
from analysis.stats.differences import LIKE_THESE, PRIMARY, SAME, SCOPES, THESE, pair_tests

MARGIN = 2.0


def equal_methods(**leads: float) -> pd.DataFrame:
    methods = {"A": 0.0, "B": 0.0, "C": 0.0, **leads}
    return designs.table(methods, languages=("sw", "ur"), ratios=(0.1, 0.5), seeds=(1, 2, 3, 4), seed_sd=0.5)


def both(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return dict.fromkeys(("en", "tl"), table)


def conclusions(table: pd.DataFrame, scope: str) -> dict[str, object]:
    """Return what the first screen concludes, by the usual way."""
    records = [r for outcome in ("en", "tl") for r in headline(table, outcome, MARGIN, scope)]
    found: dict[str, object] = {}
    for outcome in ("en", "tl"):
        of_outcome = find(records, outcome=outcome)
        found[outcome] = {r.groups for r in pair_tests(of_outcome) if (r.p_adjusted or 0) < 0.05}
        equivalent = find(of_outcome, analysis=PRIMARY, test=SAME)
        found[f"{outcome} same"] = {r.groups for r in equivalent if (r.p_adjusted or 0) < 0.05}
        found[f"{outcome} near"] = {*within_margin(of_outcome, PRIMARY)}
    return found


def collapsing(table: pd.DataFrame, method: str = "C") -> pd.DataFrame:
    """Return the table with one run of a method at 20 % in both outcomes."""
    bad = (table["method"] == method) & (table["language"] == "sw") & (table["tl_ratio"] == 0.1) & (table["seed"] == 2)
    return table.assign(f1=table["f1"].mask(bad, 0.2))


@pytest.mark.parametrize("scope", SCOPES)
def test_what_is_told_without_a_run_is_what_the_analysis_says_without_it(scope):
    """B is clearly worse, and a run of C that collapsed hides that it is, or that A and C are equivalent."""
    table = collapsing(equal_methods(B=-4.0))
    told = {r.groups: r.note for r in find(influence(both(table), scope=scope, margin=MARGIN), test=RUN)}
    full = conclusions(table, scope)
    checked = [
        ("C sw 0.1 seed 2",),
        ("A sw 0.1 seed 2",),
        ("B ur 0.5 seed 4",),
        ("C ur 0.1 seed 1",),
    ]
    for (name,) in checked:
        method, language, ratio, _, seed = name.split()
        own = (table["method"] == method) & (table["language"] == language)
        own &= (table["tl_ratio"] == float(ratio)) & (table["seed"] == int(seed))
        assert own.sum() == 2
        without = conclusions(table[~own], scope)
        note = told.get((name,), "")
        assert bool(note) == (without != full)
        for outcome in ("en", "tl"):
            for a, b in without[outcome] - full[outcome]:
                assert f"{outcome}: {a} and {b} differ" in note
            for a, b in without[f"{outcome} same"] - full[f"{outcome} same"]:
                assert f"{outcome}: {a} and {b} are equivalent" in note
            for name in full[f"{outcome} near"] - without[f"{outcome} near"]:
                assert f"{outcome}: {name} is no longer within the margin of the best" in note
        changes = sum(len(without[key] ^ full[key]) for key in without)
        assert note.count(":") == changes
    assert told


def test_a_run_that_decides_is_found_and_said():
    table = collapsing(equal_methods(B=-4.0))
    records = influence(both(table), scope=THESE, margin=MARGIN)
    decisive = find(records, test=RUN)
    assert ("C sw 0.1 seed 2",) in [r.groups for r in decisive]
    count = find(records, test=COUNT[RUN])[0]
    assert count.n == len(decisive)
    assert count.effect == pytest.approx(100 * len(decisive) / 48)
    first = robustness.deciding(records)[0]
    assert " without " in first
    assert "C sw 0.1 seed 2" in " ".join(robustness.deciding(records))


def test_nothing_decides_where_nothing_is_near():
    records = influence(both(equal_methods(B=-20.0)), scope=THESE, margin=MARGIN)
    assert [r.n for r in records] == [0, 0]
    assert robustness.deciding(records) == []


def test_a_seed_that_decides_is_found():
    """In seed 3 alone A is far ahead, which makes its difference too noisy to be significant."""
    table = equal_methods(A=2.0)
    table["f1"] += 0.25 * ((table["seed"] == 3) & (table["method"] == "A"))
    told = find(influence(both(table), scope=THESE, margin=MARGIN), test=SEED)
    assert ("seed 3",) in [r.groups for r in told]
    note = next(r.note for r in told if r.groups == ("seed 3",))
    assert "A and B differ" in note
    without = conclusions(table[table["seed"] != 3], THESE)
    assert ("A", "B") in without["en"]


def test_an_adapter_of_several_languages_is_left_out_with_all_its_results():
    table = designs.table({"A": 0.0, "B": 0.0}, ratios=(0.0, 0.1), seed_sd=0.3)
    own = (table["method"] == "B") & (table["tl_ratio"] == 0) & (table["seed"] == 1)
    table = table.assign(f1=table["f1"].mask(own, 0.2))
    told = [r.groups for r in find(influence(both(table), scope=THESE, margin=1.0), test=RUN)]
    assert ("B hi+sw+ur 0 seed 1",) in told


def test_two_seeds_cannot_be_left_out_and_one_has_no_test():
    table = equal_methods()
    two = influence(both(table[table["seed"] < 3]), scope=THESE, margin=1.0)
    assert find(two, test=COUNT[SEED])[0].note == "no test: with fewer than three seeds none can be left out"
    one = influence(both(table[table["seed"] == 1]), scope=THESE, margin=1.0)
    assert all(r.note.startswith("no test: there is one seed only") for r in one)
    assert influence(both(table[table["seed"] == 1]), scope=LIKE_THESE, margin=1.0)[0].n is not None


def decided(*changes: tuple[str, str]) -> list[str]:
    records = [
        Record(outcome="", analysis="influence", test=RUN, groups=(name,), note=note, n=1) for name, note in changes
    ]
    return robustness.deciding(records)


def test_each_conclusion_is_said_once_with_the_runs_that_decide_it():
    assert decided(("a", "tl: A and B differ")) == ["In the target language A and B differ without a."]
    change = "en: A and B are no longer equivalent"
    assert decided(*((name, change) for name in "abc")) == [
        "In English A and B are no longer equivalent without a, b or c."
    ]
    assert decided(*((name, change) for name in "abcde"))[0].endswith("without a, b, c or any of 2 more runs.")


def test_the_gravest_come_first_and_the_rest_are_counted():
    notes = [f"en: A and {name} are equivalent" for name in "BCD"]
    told = decided(("a", "; ".join([*notes, "en: A and E no longer differ", "en: F is within the margin of the best"])))
    assert told[:2] == [
        "In English F is within the margin of the best without a.",
        "In English A and E no longer differ without a.",
    ]
    assert told[3:] == ["2 more conclusions depend on a single run."]


def test_a_pair_whose_differences_do_not_vary_without_a_run_is_no_change():
    """Then it cannot be tested, which says nothing of the run."""
    table = equal_methods(B=-10.0)
    constant = table["method"].isin(["A", "B"])
    level = 0.6 - 0.1 * (table["method"] == "B")
    table = table.assign(f1=table["f1"].where(~constant, level))
    odd = (table["method"] == "A") & (table["language"] == "sw") & (table["tl_ratio"] == 0.1) & (table["seed"] == 1)
    records = influence(both(table.assign(f1=table["f1"].mask(odd, 0.61))), scope=THESE, margin=MARGIN)
    notes = {r.groups: r.note for r in find(records, test=RUN)}
    assert "A and B no longer differ" not in notes.get(("A sw 0.1 seed 1",), "")
