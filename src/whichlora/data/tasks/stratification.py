"""Orders and parts of items that are balanced over their strata."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from whichlora.data.tasks.items import Item

_Item = TypeVar("_Item", bound=Item)


def stratified_order(items: Sequence[Item], seed: str) -> list[int]:
    """Return positions in a shuffled order of which every beginning has the strata in the proportions of the whole.

    Each stratum is shuffled and its members are spread evenly over the order.
    """
    rng = random.Random(seed)
    strata: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        strata[item.stratum].append(position)
    placed: list[tuple[float, float, int]] = []
    for name in sorted(strata):
        members = strata[name]
        rng.shuffle(members)
        placed += [((k + 0.5) / len(members), rng.random(), position) for k, position in enumerate(members)]
    return [position for *_, position in sorted(placed)]


def hold_out(items: Sequence[_Item], size: int) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """Return (the rest, validation): `size` items of a pool held out for validation, at most a third of the pool.

    Which ones depends on nothing but the strata by position: on no seed, and on no text. So files of a parallel task
    give the same positions in every language, and no translation of a validation item is left in the rest. Both parts
    keep the pool's order and are numbered anew.
    """
    held = set(stratified_order(items, "held out")[: min(size, len(items) // 3)])
    parts: tuple[list[_Item], list[_Item]] = ([], [])
    for position, item in enumerate(items):
        part = parts[position in held]
        part.append(replace(item, index=len(part)))
    return tuple(parts[0]), tuple(parts[1])
