"""Orders such as "LoRA = DoRA > VeRA": how they are written, and the pairs that they speak of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

OTHERS = "*"
"""Every method that is not named; nothing is said about these among themselves."""


def parse_order(text: str) -> list[tuple[str, str, str]]:
    """Read "A = B > C; A > D" as neighbours: (A, "=", B), (B, ">", C), (A, ">", D). Signs have spaces around them.

    Raises:
        ValueError: it is not of this form.
    """
    found: list[tuple[str, str, str]] = []
    for chain in str(text).split(";"):
        parts = re.split(r"\s+([=>])\s+", chain.strip())
        if len(parts) < 3 or "" in parts:
            raise ValueError(f"order {text!r} must read like 'A = B > C', parts split by semicolons")
        found += [(parts[i], parts[i + 1], parts[i + 2]) for i in range(0, len(parts) - 2, 2)]
    return found


def resolve_method(name: str, methods: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the methods that a name in an order may mean, out of labels with their variant and arm.

    A name is a label, a variant (`lora`), a variant and its arm (`lora/tuned`), or a label without what follows it:
    `LoRA` for "LoRA (tuned)" and for "LoRA, rank 16". Several are returned where it is not clear.
    """
    if name in methods:
        return [name]
    variant, _, arm = name.partition("/")
    found = [label for label, (v, a) in methods.items() if v == variant and arm in ("", a)]
    return found or [label for label in methods if label.startswith((f"{name} (", f"{name}, "))]


def pairwise_relations(
    neighbours: Sequence[tuple[str, str, str]], present: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return every pair that an order speaks of: all pairs of equals, and each of a level against each of the next."""
    named = {level for first, _, second in neighbours for level in (first, second)}
    others = [name for name in present if name not in named]
    levels: list[list[list[str]]] = []
    for index, (first, sign, second) in enumerate(neighbours):
        if not index or neighbours[index - 1][2] != first:
            levels.append([[first]])
        if sign == "=":
            levels[-1][-1].append(second)
        else:
            levels[-1].append([second])
    found = []
    for chain in levels:
        for level in chain:
            found += [(a, "=", b) for a, b in itertools.combinations(level, 2)]
        for upper, lower in itertools.pairwise(chain):
            sides = [others if side == [OTHERS] else side for side in (upper, lower)]
            found += [(a, ">", b) for a, b in itertools.product(*sides)]
    return list(dict.fromkeys(found))
