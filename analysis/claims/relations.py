"""Finds the methods or levels that an order speaks of among those of the runs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.claims.orders import OTHERS, pairwise_relations, parse_order, resolve_method
from analysis.records import NotTestable
from analysis.stats.cells import enumerate_few
from analysis.stats.contrasts import same_level

Relations = Sequence[tuple[str, str, str]]
"""Pairs with the sign between them."""


def relations_of(order: str, frame: pd.DataFrame, factor: str = "method", metric: str = "f1") -> Relations:
    """Return the pairs that an order relates, with methods under their labels.

    Args:
        frame: the runs that have the metric, one row each.
        factor: the column that holds the levels.

    Raises:
        NotTestable: no run has the metric, a level has no runs, or a name fits several methods.
    """
    if frame.empty and metric != "f1":
        raise NotTestable(f"the runs have no {metric}")
    neighbours = parse_order(order)
    present = sorted({str(value) for value in frame[factor]}) if factor in frame else []
    named = [level for level in dict.fromkeys(x for a, _, b in neighbours for x in (a, b)) if level != OTHERS]
    if factor == "method":
        resolved = resolve_methods(named, frame)
        relations = pairwise_relations([(resolved.get(a, a), s, resolved.get(b, b)) for a, s, b in neighbours], present)
    else:
        missing = [level for level in named if not any(same_level(factor, value, level) for value in present)]
        if missing:
            raise NotTestable(f"there are no runs with {factor} {enumerate_few(missing)}")
        relations = pairwise_relations(neighbours, present if factor == "variant" else [])
    if not relations:
        raise NotTestable(f"there are no methods other than {enumerate_few(present)}")
    return relations


def resolve_methods(named: Sequence[str], frame: pd.DataFrame) -> dict[str, str]:
    """Return the method that each name refers to.

    Raises:
        NotTestable: a name fits no method, or several.
    """
    columns = [tuple(map(str, frame.get(key, pd.Series("", frame.index)))) for key in ("method", "variant", "arm")]
    methods = {label: (variant, arm) for label, variant, arm in sorted(set(zip(*columns, strict=True)))}
    matches = {name: resolve_method(name, methods) for name in named}
    if missing := [name for name in named if not matches[name]]:
        available = enumerate_few(sorted(methods), 12) or "none"
        raise NotTestable(f"there are no runs with method {enumerate_few(missing)}; the methods here are {available}")
    for name, labels in matches.items():
        if len(labels) > 1:
            short = "/".join(methods[labels[-1]])
            alternative = f" or as {short}" * (resolve_method(short, methods) == labels[-1:])
            raise NotTestable(
                f"{name} is several methods here: {enumerate_few(labels, 12)}; in your own claims file, name one of "
                f"them, as {labels[-1]}{alternative}, or choose runs by where"
            )
    return {name: labels[0] for name, labels in matches.items()}
