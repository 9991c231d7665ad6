"""Draws mean F1 against cost (parameters, bytes, time, memory, energy, forgetting), with the Pareto front."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.measures import scores
from analysis.measures.costs import costs_of
from analysis.naming import names_of
from analysis.plots.style import Plot, Styles, new_figure, render, shared_legend
from analysis.runs.methods import UNTRAINED, method_order

_HOST = {"host/memory_max_mb": "host memory, MiB"}


def logged_costs(table: pd.DataFrame) -> dict[str, str]:
    """Return the costs that were logged with their names; host memory only if no GPU memory was."""
    costs = costs_of(table)
    if "gpu/memory_max_mb" in costs:
        return costs
    return costs | {cost: name for cost, name in _HOST.items() if cost in table and table[cost].notna().any()}


def pareto_fronts(table: pd.DataFrame, outcome: str, *, marks: Styles, name: str, prefix: str) -> Plot | None:
    """Draw mean F1 against each cost; the marks of methods on the front are filled and joined."""
    trained = table[table["variant"] != UNTRAINED]
    costs = logged_costs(trained)
    if not costs or trained["method"].nunique() < 2:
        return None
    methods, names = method_order(trained), names_of(table)
    across = min(2, len(costs))
    down = math.ceil(len(costs) / across)
    figure, grid = new_figure(
        0.7 + 2.1 * down + 0.16 * len(methods) / 3, nrows=down, ncols=across, sharey=True, squeeze=False
    )
    for axes, cost in zip(grid.flat, costs, strict=False):
        points = scores.pareto(trained, outcome=outcome, cost=cost)
        front = points[points["front"]]
        axes.step(front["cost"], front["value"], where="post", color="#999999", linewidth=1, zorder=1)
        for row in sorted(points.to_dict("records"), key=lambda row: methods.index(row["method"])):
            style = marks[row["method"]]
            face = style.color if row["front"] else "white"
            axes.plot(
                row["cost"],
                row["value"],
                marker=style.marker,
                color=style.color,
                markerfacecolor=face,
                linestyle="none",
                label=row["method"],
                markersize=7,
            )
        wide = points["cost"].max() > 8 * points["cost"].min() > 0
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.set_xlabel(costs[cost])
        axes.margins(0.08)
    for axes in grid.flat[len(costs) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"mean {names.score}, {names.of(outcome).removeprefix('the ')}")
    shared_legend(figure, grid.flat[0])
    caption = f"{prefix}Filled and joined: the Pareto front; no other method is cheaper and at least as good."
    title = names.fill(f"{{Score}} in {names.of(outcome)} against cost.")
    return render(figure, name=name, title=title, caption=caption)


def _short(value: float, position: int) -> str:
    """Format a tick label with a unit prefix, for example "1.5M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
