"""The report's section on layers."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.measures.layer_shares import ANALYSIS
from analysis.plots import Plot
from analysis.records import Record
from analysis.runs.language_probes import LanguageProbes
from analysis.tables.layers import LayerSection, sentences


def section(records: Sequence[Record], probes: LanguageProbes, plots: Sequence[Plot]) -> LayerSection:
    """Return what the page shows of layers."""
    choices = {name: "all" if value in ("", "None") else value for name, value in probes.choices.items()}
    own = [record for record in records if record.analysis.startswith(ANALYSIS)]
    drawn = [plot for plot in plots if plot.name.startswith("layer")]
    return LayerSection(
        made=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in choices.items()),
        shares=[plot for plot in drawn if not plot.name.startswith("layer-correlation")],
        correlations=[plot for plot in drawn if plot.name.startswith("layer-correlation")],
        sentences=sentences(own),
        reasons=list(dict.fromkeys(r.note.removeprefix("no test: ") for r in own if r.note.startswith("no test: "))),
    )
