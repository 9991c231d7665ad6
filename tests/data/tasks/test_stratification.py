"""Every prefix of a stratified order is balanced, and the same items are held out in every language."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from whichlora.data.tasks.items import Item
from whichlora.data.tasks.stratification import hold_out, hold_out_groups, stratified_order


def items(strata: list[str], language: str = "en") -> list[Item]:
    return [Item(i, f"dev-{i}", language, stratum) for i, stratum in enumerate(strata)]


@pytest.mark.parametrize(
    "counts", [(30, 30, 30), (70, 20, 10), (1, 1, 58), (50, 3), (17,), (20,) * 30], ids=lambda counts: str(counts)[:20]
)
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_every_beginning_has_the_strata_in_proportion(counts, seed):
    strata = [str(s) for s, n in enumerate(counts) for _ in range(n)]
    random.Random(0).shuffle(strata)
    order = stratified_order(items(strata), seed)
    assert sorted(order) == list(range(len(strata)))
    seen: Counter[str] = Counter()
    for length, position in enumerate(order, 1):
        seen[strata[position]] += 1
        for stratum, n in enumerate(counts):
            assert abs(seen[str(stratum)] - n * length / len(strata)) <= 1 + 1e-9


def test_the_members_of_a_stratum_are_shuffled():
    pool = items([str(i % 3) for i in range(240)])
    orders = [[i for i in stratified_order(pool, str(seed)) if pool[i].stratum == "0"] for seed in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) != orders[0]


@pytest.mark.parametrize(("pool", "size", "held"), [(90, 12, 12), (90, 30, 30), (90, 31, 30), (10, 500, 3), (2, 5, 0)])
def test_at_most_a_third_is_held_out(pool, size, held):
    rest, validation = hold_out(items([str(i % 3) for i in range(pool)]), size)
    assert (len(rest), len(validation)) == (pool - held, held)
    assert {i.id for i in rest} | {i.id for i in validation} == {f"dev-{i}" for i in range(pool)}
    for part in (rest, validation):
        assert [item.index for item in part] == list(range(len(part)))
        numbers = [int(item.id.removeprefix("dev-")) for item in part]
        assert numbers == sorted(numbers)


def test_what_is_held_out_is_balanced_and_the_same_in_every_language():
    strata = [str(i % 3) for i in range(300)]
    random.Random(1).shuffle(strata)
    one, two = (hold_out(items(strata, language), 30) for language in ("en", "sw"))
    assert [[(i.index, i.id) for i in part] for part in one] == [[(i.index, i.id) for i in part] for part in two]
    assert Counter(item.stratum for item in one[1]) == {"0": 10, "1": 10, "2": 10}


@pytest.mark.parametrize(("size", "held"), [(9, 9), (10, 12), (12, 12), (30, 30), (31, 30)])
def test_groups_are_not_divided(size, held):
    """Of 30 groups of three items, the number is met, or exceeded by less than a group, within a third of all."""
    pool = items([str(i % 3) for i in range(90)])
    rest, validation = hold_out(pool, size, [str(i // 3) for i in range(90)])
    assert (len(rest), len(validation)) == (90 - held, held)
    groups = [{int(item.id.removeprefix("dev-")) // 3 for item in part} for part in (rest, validation)]
    assert groups[0].isdisjoint(groups[1])


def test_groups_of_one_are_held_out_as_items_are():
    pool = items([str(i % 4) for i in range(80)])
    assert hold_out(pool, 20, [f"g{i}" for i in range(80)]) == hold_out(pool, 20)


def test_a_group_of_more_than_a_third_is_trained_on():
    rest, validation = hold_out(items(["0"] * 30), 5, ["large"] * 20 + [str(i) for i in range(10)])
    assert len(validation) == 5
    assert {f"dev-{i}" for i in range(20)} <= {item.id for item in rest}


def test_shared_groups_are_held_out_in_every_language_and_balance_the_source():
    rng = random.Random(0)
    groups = [f"g{rng.randrange(25)}" for _ in range(200)]
    strata = [str(int(group[1:]) % 3 if rng.random() < 0.6 else rng.randrange(3)) for group in groups]
    source, target = items(strata), items(strata[:90], "tr")
    others = [f"g{rng.randrange(40)}" for _ in range(90)]
    halves = hold_out_groups(source, groups, groups, 30, strata), hold_out_groups(target, others, groups, 30, strata)
    named = [
        [{named[int(i.id[4:])] for i in part} for part in half]
        for half, named in zip(halves, (groups, others), strict=True)
    ]
    assert not (named[0][0] | named[1][0]) & (named[0][1] | named[1][1])
    assert 30 <= len(halves[0][1]) <= 45
    shares = [Counter(item.stratum for item in part) for part in (source, halves[0][1])]
    assert all(abs(shares[1][s] / shares[1].total() - shares[0][s] / 200) < 0.06 for s in "012")
    assert hold_out_groups(source, groups, groups, 30, strata) == halves[0]
