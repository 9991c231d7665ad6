"""Draws the first figure of the report: how far each method is below the one with the highest mean."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.decimals import fixed
from analysis.naming import names_in
from analysis.plots.style import Plot, label_ticks, max_lines, new_figure, render, wrap
from analysis.records import Record, find
from analysis.stats.cells import points
from analysis.stats.differences import PAIR_TESTS, THESE, pair_tests
from analysis.stats.groupings import differences_from_highest

_BEST, _DIFFERS, _OPEN = ("#000000", "D"), ("#D55E00", "s"), ("#0072B2", "o")
_AXIS_CHARACTERS = 60


def leaders(records: Sequence[Record], outcome: str, *, name: str, margin: float) -> Plot | None:
    """Draw each method's difference from the highest mean with its simultaneous 95 % interval, and the margin."""
    of_outcome = find(records, outcome=outcome)
    methods = differences_from_highest(of_outcome)
    if not any(method.interval for method in methods):
        return None
    score = names_in(records).score
    best, rows = methods[0], list(reversed([method for method in methods if method.effect is not None]))
    labels = [f"{method.name}  {fixed(method.mean, 1)}" for method in rows]
    figure, axes = new_figure(0.75 + 0.24 * len(rows) * max_lines(labels))
    axes.axvspan(-margin, margin, color="#e4e4e4", zorder=0)
    axes.axvline(0, color="#555555", linewidth=0.8)
    for y, method in enumerate(rows):
        differs = method.p is not None and method.p < 0.05
        colour, marker = _BEST if method is best else _DIFFERS if differs else _OPEN
        if method.interval:
            axes.plot(method.interval, [y, y], color=colour, linewidth=2.0 if differs else 1.4)
        axes.plot(
            method.effect, y, marker=marker, color=colour, markerfacecolor=colour if differs else "white", zorder=3
        )
    axes.plot(0, len(rows) - 1, marker=_BEST[1], color=_BEST[0], zorder=4)
    label_ticks(axes.yaxis, labels)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel(wrap(f"difference from {best.name}, {score} points", _AXIS_CHARACTERS))
    where = "these languages and ratios" if _scope_is_these(of_outcome) else "languages and ratios like these"
    missing = [method.name for method in methods if method.effect is None]
    without = f" Left out because no interval is available: {', '.join(missing)}." if missing else ""
    caption = (
        f"Difference from the highest mean on {where}; lines are 95 % CIs, simultaneous over all pairs. Next to each "
        f"name: mean {score}. Shaded: the margin of equivalence, ±{points(margin)}. Filled squares: significantly "
        f"different from the highest mean; open circles: no significant difference.{without}"
    )
    title = f"{names_in(records).title(outcome)}: difference from the highest mean."
    return render(figure, name=name, title=title, caption=caption)


def _scope_is_these(records: Sequence[Record]) -> bool:
    return any(record.test == PAIR_TESTS[THESE] for record in pair_tests(records))
