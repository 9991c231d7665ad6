"""Draws performance profiles: the share of a method's runs above each score (Agarwal et al. 2021)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.naming import names_of
from analysis.plots.style import Plot, Styles, new_figure, render, shared_legend
from analysis.records import NotTestable
from analysis.robustness.aggregates import profile, strata
from analysis.runs.methods import method_order

_POINTS = 121


def performance_profiles(table: pd.DataFrame, outcome: str, *, marks: Styles, name: str, prefix: str) -> Plot | None:
    """Draw the share of runs above each score, with pointwise intervals over seeds; None for a single run."""
    try:
        by_method, _ = strata(table, outcome)
    except NotTestable:
        return None
    every = np.concatenate([runs.values for runs in by_method.values()])
    if len(by_method) < 2 or np.ptp(every) == 0 or all((runs.sizes < 2).all() for runs in by_method.values()):
        return None
    names = names_of(table)
    levels = np.linspace(every.min() - 0.02 * np.ptp(every), every.max(), _POINTS)
    figure, axes = new_figure(2.6 + 0.16 * len(by_method) / 3)
    for method in [method for method in method_order(table) if method in by_method]:
        line = profile(by_method[method], levels)
        style = marks[method]
        axes.plot(line.scores, 100 * line.share, label=method, markevery=_POINTS // 6, **style._asdict())
        axes.fill_between(line.scores, 100 * line.low, 100 * line.high, color=style.color, alpha=0.12, linewidth=0)
    axes.set_xlabel(f"{names.score} in {names.of(outcome)}, points")
    axes.set_ylabel("runs above, %")
    axes.set_ylim(-1, 101)
    shared_legend(figure, axes)
    caption = (
        f"{prefix}Share of each method's runs with more {names.score} than the horizontal axis says, blocks weighted "
        "alike; bands are pointwise 95 % bootstrap intervals over seeds within blocks. A curve above another "
        "everywhere is better throughout; a long tail at the left is of bad runs or hard blocks."
    )
    return render(figure, name=name, title=f"Performance profiles, {names.of(outcome)}.", caption=caption)
