"""The plots, as PNG files and as SVG that stands in the report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.plots.comparisons import critical_difference, forest, power_curve
from analysis.plots.fronts import pareto
from analysis.plots.insides import inside_plots
from analysis.plots.layers import layer_plots
from analysis.plots.scores import f1_by_ratio, interaction, training_curves
from analysis.plots.style import Plot, look, styles
from analysis.records import Record
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.methods import method_order
from analysis.runs.representation_probes import RepresentationProbes

Losses = Mapping[str, Mapping[str, Sequence[pd.Series]]]
"""By the words for a cell of the design, and by method: the loss of each seed, indexed by step."""


def make_plots(
    table: pd.DataFrame,
    records: Sequence[Record],
    losses: Losses,
    probes: LanguageProbes,
    insides: RepresentationProbes,
    *,
    margin: float,
) -> list[Plot]:
    """Draw what can be drawn; a design too small for a plot has none."""
    with look():  # what is written into a figure takes its size from here
        made = _draw(table, records, losses, probes, margin)
        made += inside_plots(insides.alignment, styles(method_order(table)))
    return [plot for plot in made if plot is not None]


def _draw(
    table: pd.DataFrame, records: Sequence[Record], losses: Losses, probes: LanguageProbes, margin: float
) -> list[Plot | None]:
    made: list[Plot | None] = []
    marks = styles(method_order(table))
    settings = [(str(setting), rows) for setting, rows in table.groupby("setting", sort=True)]
    for number, (setting, rows) in enumerate(settings, 1):
        end, where = (f"-{number}", f"{setting}. ") if len(settings) > 1 else ("", "")
        for draw, name in ((f1_by_ratio, "f1"), (interaction, "blocks"), (pareto, "cost")):
            made += [
                draw(rows, outcome, marks=marks, name=f"{name}-{outcome}{end}", where=where) for outcome in ("en", "tl")
            ]
    for outcome in ("en", "tl"):
        made.append(forest(records, outcome, name=f"differences-{outcome}", margin=margin))
        made.append(critical_difference(records, outcome, name=f"ranks-{outcome}"))
    made.append(power_curve(records, name="power-curve", margin=margin))
    for number, (where, by_method) in enumerate(losses.items(), 1):
        made.append(training_curves(by_method, marks=marks, name=f"loss-{number}", where=where))
    made += layer_plots(probes.shares, records, [setting for setting, _ in settings], marks=marks)
    return made


__all__ = ["Losses", "Plot", "make_plots"]
