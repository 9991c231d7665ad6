"""Letters and orders say no more and no less than the comparisons they stand for."""

from __future__ import annotations

import itertools

import designs
import numpy as np

from analysis.records import find
from analysis.stats.blocked import blocked
from analysis.stats.groupings import grouping, groupings


def test_two_methods_share_a_letter_if_and_only_if_they_are_not_told_apart():
    rng = np.random.default_rng(0)
    for _ in range(60):
        names = [f"m{i}" for i in range(rng.integers(2, 8))]
        means = dict(zip(names, rng.normal(size=len(names)), strict=True))
        p = {pair: float(rng.random() ** 3) for pair in itertools.combinations(names, 2)}
        found = grouping(means, p, alpha=0.05)
        for (a, b), value in p.items():
            assert bool(set(found.letters[a]) & set(found.letters[b])) == (value >= 0.05)
        assert list(found.order) == sorted(names, key=lambda name, means=means: -means[name])


def test_an_order_is_printed_where_it_is_transitive():
    means = {"A": 3.0, "B": 2.9, "C": 1.0}
    assert grouping(means, {("A", "B"): 0.9, ("A", "C"): 0.01, ("B", "C"): 0.02}).text == "A = B > C"
    assert grouping(means, {("A", "B"): 0.9, ("A", "C"): 0.9, ("B", "C"): 0.9}).text == "A = B = C"


def test_no_order_is_printed_where_it_is_not():
    """A = B and B = C, but A > C: "A = B = C" and "A > C" would both be wrong."""
    found = grouping({"A": 3.0, "B": 2.0, "C": 1.0}, {("A", "B"): 0.2, ("B", "C"): 0.2, ("A", "C"): 0.01})
    assert found.text is None
    assert found.letters == {"A": "a", "B": "ab", "C": "b"}


def test_no_order_is_printed_where_a_group_is_split_by_another():
    found = grouping({"A": 3.0, "B": 2.0, "C": 1.0}, {("A", "C"): 0.2, ("A", "B"): 0.01, ("B", "C"): 0.01})
    assert found.text is None


def test_the_papers_order_comes_out_of_a_design_that_has_it():
    table = designs.table({"LoRA": 0, "DoRA": 0, "PiSSA": -3, "VeRA": -6}, seed_sd=0.5)
    found = groupings(blocked(table, outcome="en"), outcome="en")
    (text,) = find(found, test="grouping")
    assert text.note.split(" (")[0] in ("LoRA = DoRA > PiSSA > VeRA", "DoRA = LoRA > PiSSA > VeRA")
    assert {r.groups[0]: r.note for r in find(found, test="letters")} == {
        "LoRA": "a",
        "DoRA": "a",
        "PiSSA": "b",
        "VeRA": "c",
    }
