"""Parses orders such as "LoRA = DoRA > VeRA" and lists the pairs that they relate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

OTHERS = "*"
"""Stands for all methods that are not named; it implies no relation among them."""
NOT_WORSE = ">="


def parse_order(text: str) -> list[tuple[str, str, str]]:
    """Parse "A = B > C; A > D" into relations of neighbours: (A, "=", B), (B, ">", C), (A, ">", D).

    The signs are "=", ">" and ">=" (less than the margin worse, or better) and must be surrounded by spaces.

    Raises:
        ValueError: the text does not have this form.
    """
    relations: list[tuple[str, str, str]] = []
    for chain in str(text).split(";"):
        parts = re.split(r"\s+(>=|[=>])\s+", chain.strip())
        if len(parts) < 3 or "" in parts:
            raise ValueError(f"order {text!r} must have the form 'A = B > C', with semicolons between orders")
        relations += [(parts[i], parts[i + 1], parts[i + 2]) for i in range(0, len(parts) - 2, 2)]
    return relations


def resolve_method(name: str, methods: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the methods that a name in an order can refer to; several if it is ambiguous.

    A name is a label, a variant (`lora`), a variant and an arm (`lora/tuned`), or the head of a label: `LoRA` for
    "LoRA (tuned)" and for "LoRA, rank 16".

    Args:
        methods: the variant and the arm of each label.
    """
    if name in methods:
        return [name]
    variant, _, arm = name.partition("/")
    labels = [label for label, (v, a) in methods.items() if v == variant and arm in ("", a)]
    return labels or [label for label in methods if label.startswith((f"{name} (", f"{name}, "))]


def pairwise_relations(
    neighbours: Sequence[tuple[str, str, str]], present: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return every pair that an order relates: all pairs of equals, and each of a level with each of the next level.

    Args:
        neighbours: the result of `parse_order`.
        present: all methods of the runs, for `OTHERS`.
    """
    named = {level for first, _, second in neighbours for level in (first, second)}
    others = [name for name in present if name not in named]
    chains: list[list[tuple[str, list[str]]]] = []
    for index, (first, sign, second) in enumerate(neighbours):
        if not index or neighbours[index - 1][2] != first:
            chains.append([("", [first])])
        if sign == "=":
            chains[-1][-1][1].append(second)
        else:
            chains[-1].append((sign, [second]))
    relations = []
    for chain in chains:
        for _, level in chain:
            for pair in itertools.combinations(level, 2):
                relations += [(a, "=", b) for a, b in itertools.product(*(_members(name, others) for name in pair))]
        for (_, upper), (sign, lower) in itertools.pairwise(chain):
            sides = [[member for name in side for member in _members(name, others)] for side in (upper, lower)]
            relations += [(a, sign, b) for a, b in itertools.product(*sides)]
    return list(dict.fromkeys(relations))


def _members(name: str, others: Sequence[str]) -> Sequence[str]:
    return others if name == OTHERS else [name]
