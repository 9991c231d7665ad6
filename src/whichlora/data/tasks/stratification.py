"""Stratified sampling: shuffled orders and held-out splits that are balanced over the items' strata."""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from whichlora.data.tasks.items import Item

_Item = TypeVar("_Item", bound=Item)
ORDERS = 32
"""Number of orders of groups that are compared when groups are held out."""


def stratified_order(items: Sequence[Item], seed: str) -> list[int]:
    """Return the positions of `items` in a shuffled order in which every prefix has the overall strata proportions.

    Each stratum is shuffled, and its items are spread evenly over the order.
    """
    rng = random.Random(seed)
    strata: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        strata[item.stratum].append(position)
    keyed: list[tuple[float, float, int]] = []
    for name in sorted(strata):
        members = strata[name]
        rng.shuffle(members)
        keyed += [((k + 0.5) / len(members), rng.random(), position) for k, position in enumerate(members)]
    return [position for *_, position in sorted(keyed)]


def hold_out_groups(
    items: Sequence[_Item],
    groups: Sequence[str],
    reference: Sequence[str],
    size: int,
    strata: Sequence[str] = (),
) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """Split `items` into (rest, validation) without dividing a group, the same groups in every language.

    Groups are ordered by a digest of their names. Those of `reference`, the source language's items, are held out
    until they have `size` items, but at most a third of all, and with them all groups of other languages that come
    before the last of them. Of `ORDERS` such orders the one is taken that balances the strata of the source language
    best.

    Args:
        groups: the group of each item.
        reference: the group of each item of the source language.
        strata: the stratum of each item of the source language.
    """
    counts = Counter(reference)
    limit = min(size, len(reference) // 3)
    wanted = Counter(strata)

    def last_rank(order: int) -> str:
        """Return the rank of the last group that is held out."""
        held, last = 0, ""
        for rank, group in sorted((_rank(group, order), group) for group in counts):
            if held >= limit or (held and held + counts[group] > len(reference) // 3):
                break
            held, last = held + counts[group], rank
        return last

    def imbalance(order: int) -> float:
        """Return the sum over strata of the differences between their shares in the held-out items and in all."""
        last = last_rank(order)
        held = Counter(s for s, group in zip(strata, reference, strict=True) if _rank(group, order) <= last)
        total = max(1, held.total())
        return sum(abs(held[stratum] / total - n / len(strata)) for stratum, n in wanted.items())

    best = min(range(ORDERS), key=imbalance) if strata else 0
    last = last_rank(best)
    return _divide(items, {position for position, group in enumerate(groups) if _rank(group, best) <= last})


@functools.lru_cache(maxsize=100_000)
def _rank(group: str, order: int) -> str:
    return hashlib.sha256(f"held out {order} {group}".encode()).hexdigest()


def hold_out(
    items: Sequence[_Item], size: int, groups: Sequence[str] = ()
) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """Split `items` into (rest, validation), with `size` items but at most a third of all held out for validation.

    The split depends only on strata and groups by position, not on a seed or on texts. In a parallel task with the
    groups of one language, the same positions are therefore held out in every language, so that the rest contains no
    translation of a validation item. Both parts keep the order, and their items are renumbered from 0.

    Args:
        groups: the group of each item, which is not divided; an item without one is a group of its own. If the groups
            that fit have fewer items than `size`, one more is held out, unless that were more than a third of all.
    """
    named = dict(enumerate(groups))
    members: dict[Hashable, list[int]] = defaultdict(list)
    for position in range(len(items)):
        members[named.get(position, position)].append(position)
    together = list(members.values())
    # A group is sampled as one item, whose stratum is that of its members together.
    strata = ["+".join(sorted(items[i].stratum for i in group)) for group in together]
    sampled = [replace(items[group[0]], stratum=stratum) for group, stratum in zip(together, strata, strict=True)]
    limit = min(size, len(items) // 3)
    held: set[int] = set()
    skipped: list[list[int]] = []
    for group in (together[k] for k in stratified_order(sampled, "held out")):
        if len(held) + len(group) <= limit:
            held.update(group)
        else:
            skipped.append(group)
    if len(held) < limit:
        held.update(next((group for group in skipped if len(held) + len(group) <= len(items) // 3), ()))
    return _divide(items, held)


def _divide(items: Sequence[_Item], held: set[int]) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    parts: tuple[list[_Item], list[_Item]] = ([], [])
    for position, item in enumerate(items):
        part = parts[position in held]
        part.append(replace(item, index=len(part)))
    return tuple(parts[0]), tuple(parts[1])
