"""Draws the report's plots, as PNG files and as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.naming import OUTCOMES
from analysis.plots.comparisons import critical_difference, detectable_curve, forest
from analysis.plots.fronts import pareto_fronts
from analysis.plots.layers import layer_plots
from analysis.plots.leaders import leaders
from analysis.plots.profiles import performance_profiles
from analysis.plots.representations import representation_plots
from analysis.plots.scores import f1_by_ratio, interaction, training_curves
from analysis.plots.style import Plot, method_styles, plot_style
from analysis.records import Record
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.methods import method_order
from analysis.runs.representation_probes import RepresentationProbes

Losses = Mapping[str, Mapping[str, Sequence[pd.Series]]]
"""Training losses by cell of the design (as text) and method: a series for each seed, indexed by step."""


def make_plots(
    table: pd.DataFrame,
    records: Sequence[Record],
    losses: Losses,
    probes: LanguageProbes,
    representations: RepresentationProbes,
    *,
    margin: float,
) -> list[Plot]:
    """Return every plot for which the design is large enough."""
    with plot_style():  # artists take their font sizes from the style that is active when they are created
        plots = _draw(table, records, losses, probes, margin)
        plots += representation_plots(representations.alignment, method_styles(method_order(table)))
    return [plot for plot in plots if plot is not None]


def _draw(
    table: pd.DataFrame, records: Sequence[Record], losses: Losses, probes: LanguageProbes, margin: float
) -> list[Plot | None]:
    plots: list[Plot | None] = []
    marks = method_styles(method_order(table))
    settings = [(str(setting), rows) for setting, rows in table.groupby("setting", sort=True)]
    for number, (setting, rows) in enumerate(settings, 1):
        suffix, prefix = (f"-{number}", f"{setting}. ") if len(settings) > 1 else ("", "")
        drawn = {"f1": f1_by_ratio, "blocks": interaction, "cost": pareto_fronts, "profile": performance_profiles}
        for name, draw in drawn.items():
            plots += [
                draw(rows, outcome, marks=marks, name=f"{name}-{outcome}{suffix}", prefix=prefix)
                for outcome in ("en", "tl")
                if outcome in set(rows["outcome"])
            ]
    plots += [leaders(records, outcome, name=f"leaders-{outcome}", margin=margin) for outcome in OUTCOMES]
    for outcome in ("en", "tl"):
        plots.append(forest(records, outcome, name=f"differences-{outcome}", margin=margin))
        plots.append(critical_difference(records, outcome, name=f"ranks-{outcome}"))
    plots.append(detectable_curve(records, name="detectable", margin=margin))
    for number, (cell, by_method) in enumerate(losses.items(), 1):
        plots.append(training_curves(by_method, marks=marks, name=f"loss-{number}", prefix=cell))
    plots += layer_plots(probes.shares, records, [setting for setting, _ in settings], marks=marks)
    return plots


__all__ = ["Losses", "Plot", "make_plots"]
