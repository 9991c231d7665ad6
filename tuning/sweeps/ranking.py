"""How methods rank, each at its best rate, under every recipe of a sweep that has several, such as batch sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from scipy.stats import kendalltau, rankdata

from tuning.sweeps.best_arms import rate_text
from tuning.sweeps.methods import Method

Best = tuple[float, float | None]
"""Mean score over the seeds at the best rate, and that rate; minus infinity and None if all trainings diverged."""


def recipes(methods: Mapping[str, Method]) -> dict[str, tuple[str, str]]:
    """Return the method and its recipe by name in the sweep: "lora" and "batch_size=8" for "lora batch_size=8"."""
    found = [json.loads(method.recipe) for method in methods.values()]
    varied = [option for option in (found or [{}])[0] if len({json.dumps(recipe[option]) for recipe in found}) > 1]
    parts = {name: [f"{option}={getattr(m.options, option)}" for option in varied] for name, m in methods.items()}
    return {
        name: (" ".join(word for word in name.split(" ") if word not in parts[name]), ", ".join(parts[name]))
        for name in methods
    }


def ranking(named: Mapping[str, tuple[str, str]], best: Mapping[str, Best]) -> list[list[str]]:
    """Return a table with a row for each method and a column for each recipe: score in points, rank, and rate.

    Ranks are given where all methods have a score. The last row is Kendall's tau-b between the scores under a recipe
    and those under the first one: 1 if the order is the same, -1 if it is reversed.

    Args:
        named: method and recipe, as `recipes` returns them.
        best: the results by the same names, of those that have one.

    Returns:
        The head and the rows; nothing with a single recipe or a single method.
    """
    rows, columns = (list(dict.fromkeys(pair[index] for pair in named.values())) for index in (0, 1))
    if len(rows) < 2 or len(columns) < 2:
        return []
    found = {pair: best[name] for name, pair in named.items() if name in best}
    scores = {
        column: [found[row, column][0] for row in rows]
        for column in columns
        if all((row, column) in found for row in rows)
    }
    ranks = {column: rankdata([-score for score in values], method="min") for column, values in scores.items()}
    table = [["variant", *(f"{column}: points (rank) rate" for column in columns)]]
    for index, row in enumerate(rows):
        cells = []
        for column in columns:
            rank = f" ({int(ranks[column][index])})" if column in ranks else ""
            cells.append(_cell(found.get((row, column)), rank))
        table.append([row, *cells])
    return [*table, ["Kendall's tau with the first", *(_tau(scores, columns[0], column) for column in columns)]]


def _cell(best: Best | None, rank: str) -> str:
    if best is None:
        return ""
    score, rate = best
    return f"diverged{rank}" if rate is None else f"{100 * score:.1f}{rank} {rate_text(rate)}"


def _tau(scores: Mapping[str, list[float]], first: str, other: str) -> str:
    if first not in scores or other not in scores:
        return "-"
    finite = [
        [max(score, -1.0) for score in scores[column]] for column in (first, other)
    ]  # infinities are no numbers to SciPy
    tau = float(kendalltau(*finite).statistic)
    return "-" if math.isnan(tau) else f"{tau:.2f}"
