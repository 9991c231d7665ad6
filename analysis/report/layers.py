"""Collects what the report's section on layers shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.measures.layer_shares import ANALYSIS
from analysis.naming import names_in
from analysis.plots import Plot
from analysis.records import Record
from analysis.runs.language_probes import LanguageProbes
from analysis.tables.layers import sentences


class LayerSection(NamedTuple):
    """The report's section on layers.

    Attributes:
        choices: the options of the probes, as text.
        sentences: one for each panel of correlations.
        reasons: why tests could not be made.
    """

    choices: str
    shares: list[Plot]
    correlations: list[Plot]
    sentences: list[str]
    reasons: list[str]


def layer_section(records: Sequence[Record], probes: LanguageProbes, plots: Sequence[Plot]) -> LayerSection:
    """Return the section on layers."""
    choices = {name: "all" if value in ("", "None") else value for name, value in probes.choices.items()}
    correlations = [record for record in records if record.analysis.startswith(ANALYSIS)]
    notes = [record.note for record in correlations if record.note.startswith("no test: ")]
    layer_plots = [plot for plot in plots if plot.name.startswith("layer")]
    return LayerSection(
        choices=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in choices.items()),
        shares=[plot for plot in layer_plots if not plot.name.startswith("layer-correlation")],
        correlations=[plot for plot in layer_plots if plot.name.startswith("layer-correlation")],
        sentences=sentences(correlations, names_in(records)),
        reasons=list(dict.fromkeys(note.removeprefix("no test: ") for note in notes)),
    )
