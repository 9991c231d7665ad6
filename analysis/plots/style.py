"""How every plot looks: told apart by marker and line as well as by colour, small enough for a telephone's screen."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import style
from matplotlib.figure import Figure

from analysis.plots.lettering import transliterate

WIDTH = 5.2
"""Inches. At 400 pixels a label of 8.5 points is still some 9 pixels high."""

_SETTINGS: dict[Any, Any] = {
    **{"font.size": 8.5, "axes.titlesize": 9, "legend.fontsize": 8.5, "figure.dpi": 100, "savefig.dpi": 150},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd"},
    **{"grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4, "lines.markersize": 5.5},
    **{"svg.hashsalt": "whichlora", "svg.fonttype": "path", "figure.constrained_layout.use": True},
    "font.family": "DejaVu Sans",
}
# Okabe and Ito's colours without the yellow, which is hard to see on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))


def plot_style() -> AbstractContextManager[None]:
    """Draw as all plots are drawn, whatever style the user's files or other code of the process have set."""
    return style.context(_SETTINGS, after_reset=True)


class Style(NamedTuple):
    """What stands for a method in every plot."""

    color: str
    marker: str
    linestyle: Any


Styles = dict[str, Style]
"""The style of each method, the same in every plot of a report."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawn plot: what it is called, what it shows in words, and both its forms."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


def method_styles(methods: Sequence[str]) -> Styles:
    """Return a style for each method; markers differ for up to eleven, pairs of marker and colour for 77."""
    cycles = zip(itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), itertools.cycle(_LINES), strict=False)
    return {method: Style(*style) for method, style in zip(methods, cycles, strict=False)}


def new_figure(height: float, **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes (an array if `nrows` or `ncols` is given)."""
    with plot_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots(**options)


def shared_legend(figure: Figure, axes: Any, columns: int = 3) -> None:
    """Put one legend under a figure, as its axes' first has it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2)


def label_ticks(axis: Any, labels: Sequence[str]) -> None:
    """Name the positions 0, 1, 2 of an axis; tick labels are made anew when drawn, so they are transliterated here."""
    axis.set_ticks(range(len(labels)), [transliterate(label) for label in labels])


def render(figure: Figure, *, name: str, title: str, caption: str) -> Plot:
    """Render a figure, the same bytes for the same figure, and transliterate what its font cannot show."""
    with plot_style():
        for text in figure.findobj(mpl.text.Text):
            text.set_text(transliterate(text.get_text()))
            text.set_parse_math(False)  # a name with dollar signs is no formula
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for both forms
        vector, bitmap = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(bitmap, format="png", metadata={"Software": None})
    return Plot(name=name, title=title, caption=caption, svg=_inline(vector.getvalue(), name), png=bitmap.getvalue())


def _inline(svg: str, name: str) -> str:
    """Make an SVG file one that can stand in a page with others: no prologue, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
