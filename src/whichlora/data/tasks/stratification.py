"""Stratified sampling: shuffled orders and held-out splits that are balanced over the items' strata."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from whichlora.data.tasks.items import Item

_Item = TypeVar("_Item", bound=Item)


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


def hold_out(items: Sequence[_Item], size: int) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """Split `items` into (rest, validation), with `size` items but at most a third of all held out for validation.

    The split depends only on the strata by position, not on a seed or on texts. In a parallel task the same positions
    are therefore held out in every language, so that the rest contains no translation of a validation item. Both parts
    keep the order, and their items are renumbered from 0.
    """
    held = set(stratified_order(items, "held out")[: min(size, len(items) // 3)])
    parts: tuple[list[_Item], list[_Item]] = ([], [])
    for position, item in enumerate(items):
        part = parts[position in held]
        part.append(replace(item, index=len(part)))
    return tuple(parts[0]), tuple(parts[1])
